//! Policy: what happens to a record, and when it counts as finished.
//!
//! A record is decoded (`decode`) and gathered into a batch ([`batcher`]). The batch is finished
//! (`batch`): its records are stored (`persist`) and written through to Redis ([`write_through`]),
//! or dead-lettered. No step fails for good: the pipeline waits ([`waits`]) and retries.

mod batch;
pub mod batcher;
pub mod breaker;
mod decode;
pub mod future;
mod parts;
mod persist;
mod retry;
pub mod step_size;
mod trace;
mod turn;
pub mod waits;
pub mod write_through;

pub use batcher::Pipeline;
