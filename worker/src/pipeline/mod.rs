//! Policy: what becomes of a record, and when it counts as finished.
//!
//! A record is decoded (`decode`), gathered into a batch ([`batcher`]), and finished with it (`batch`): stored (`persist`)
//! and written through to Redis ([`write_through`]), or dead-lettered. Nothing here ends in failure: what
//! cannot be done now is waited for ([`waits`]) and done again.

mod batch;
pub mod batcher;
pub mod breaker;
mod decode;
pub mod future;
pub mod pace;
mod parts;
mod persist;
mod retry;
mod trace;
mod turn;
pub mod waits;
pub mod write_through;

pub use batcher::Pipeline;
