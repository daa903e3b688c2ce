//! Kafka: producer, consumer and admin operations.

mod batch;
mod broker;
mod group;
mod inquirer;
mod record;
mod tail;

pub use broker::{Broker, Timestamps};
pub use group::{CommittedOffsets, GroupProgress};
pub use record::{Header, Position, Stored};
pub use tail::Tail;
