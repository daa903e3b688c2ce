//! Mechanism: the only code of the worker that knows librdkafka. The [`pipeline`](crate::pipeline)
//! decides what to do with a record.
//!
//! | module | responsibility |
//! |---|---|
//! | `start`, `poll`, `memory` | the poll thread: start, loop, backpressure, leaving the group |
//! | `assignment`, `ledger` | which records are finished, and which offset to store |
//! | `consumer`, `context` | the consumer, and what its callbacks share |
//! | `rebalance`, `statistics` | callbacks: partitions come and go; state once a second |
//! | `group_state` | membership, lag and brokers, as the probes see them |
//! | `membership`, `promptness` | leaves the group; keeps heartbeats and rebalances prompt |
//! | `went_back`, `restart`, `topic_identity` | a recreated or truncated topic |
//! | `gap`, `fetch_errors` | deleted records, unreadable partitions |
//! | `record`, `headers` | an owned copy of a record |
//! | `client` | every property of every client |
//! | `error_log`, `handshakes` | limit the log of recurring errors; explain TLS handshakes |
//! | [`dead_letter`], `sender` | writes, reads and replays dead letters |
//! | `offsets`, `ranges`, `topics` | for operators: offsets, reading a range, creating topics |
//!
//! `ledger`, `went_back`, `gap` and `fetch_errors` are pure.

mod assignment;
mod client;
mod consumer;
mod context;
pub mod dead_letter;
mod error_log;
mod fetch_errors;
mod gap;
mod group_state;
mod handshakes;
mod headers;
mod ledger;
mod membership;
mod memory;
mod offsets;
mod poll;
mod promptness;
mod ranges;
mod rebalance;
mod record;
mod restart;
mod sender;
mod start;
mod statistics;
mod topic_identity;
mod topics;
mod went_back;

use std::thread;

use anyhow::Context;
use tokio::sync::oneshot;

pub use assignment::Assignment;
pub use client::{check, client_id, reader_group};
pub use group_state::GroupState;
pub use headers::Header;
pub use ledger::Ticket;
pub use offsets::{Offsets, PartitionOffsets};
pub use record::{Intake, Received, Record, Timestamp};
pub use start::{DrainLimits, Poller, Started, start};
pub use topics::{Retention, create_topics, dead_letter_retention};

/// Runs a blocking Kafka call on its own thread. On a thread of the runtime, the call would delay
/// shutdown while no broker answers. If the caller drops the future, the call continues in the
/// background.
///
/// # Errors
/// The error of `call`, or a failure to start the thread.
pub async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, result) = oneshot::channel();
    thread::Builder::new()
        .name("kafka-call".to_owned())
        .spawn(move || {
            // The caller may have dropped the future.
            let _ = sender.send(call());
        })
        .context("cannot start a thread")?;
    result.await.context("the thread of a Kafka call ended")?
}
