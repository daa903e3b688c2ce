//! Mechanism: everything that knows librdkafka. What to do with a record is decided in [`pipeline`](crate::pipeline).

mod assignment;
mod client;
mod context;
pub mod dead_letter;
mod gap;
mod headers;
mod ledger;
mod membership;
mod offsets;
mod poll;
mod ranges;
mod record;
mod sender;
mod topics;

pub use assignment::Assignment;
pub use client::{check, client_id};
pub use context::GroupState;
pub use ledger::Ticket;
pub use offsets::{Offsets, PartitionOffsets};
pub use poll::{DrainLimits, Poller, Started, start};
pub use record::{Header, Intake, Received, Record, Timestamp};
pub use topics::create_topics;
