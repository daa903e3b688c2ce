//! A private system.

mod build;
mod builder;
mod member;
mod running;
mod topics;
mod waits;

pub use build::Build;
pub use builder::Builder;
pub use member::{Admin, Api, Worker};
pub use running::Stack;
