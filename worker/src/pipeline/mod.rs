//! Policy: what happens to a record, and when it counts as finished.
//!
//! The batcher decodes records and gathers them into batches. A batch is finished when its records
//! are stored and written through to Redis, or dead-lettered. No step fails for good: the pipeline
//! waits and retries.
//!
//! | module | responsibility |
//! |---|---|
//! | [`batcher`] | gathers records into batches; runs several batches at once |
//! | `decode` | decodes a record into a change, or into the reason why it can never be stored |
//! | [`future`] | decides whether records from the future mean that a clock is wrong |
//! | `batch` | finishes one batch: Postgres, Redis, dead letters, then the offsets |
//! | `persist` | writes one batch to Postgres |
//! | `parts` | the parts of a batch that are not stored yet: retry, halve or reject one |
//! | [`breaker`] | stops dead-lettering when Postgres rejects many rows |
//! | [`write_through`] | writes stored orders to Redis, or marks them for repair |
//! | `retry` | retries calls until they succeed |
//! | `turn` | limits how many batches use Postgres at once |
//! | [`waits`] | the known waits, for probes and metrics |
//! | [`step_size`] | sizes of the steps in which orders are copied to Redis |
//! | `trace` | spans of traced records |
//! | [`services`] | what the pipeline needs of Postgres, Redis and Kafka, as traits |

mod batch;
pub mod batcher;
pub mod breaker;
pub(crate) mod decode;
#[cfg(test)]
mod doubles;
pub mod future;
mod parts;
mod persist;
mod retry;
pub mod services;
pub mod step_size;
mod trace;
mod turn;
pub mod waits;
pub mod write_through;

pub use batcher::Pipeline;
pub(crate) use decode::decode_record;
