//! A private system.

mod builder;
mod member;
mod running;
mod topics;
mod waits;

pub use builder::Builder;
pub use member::{Admin, Api, Worker};
pub use running::Stack;
