//! Mechanism: the only code of the worker that knows librdkafka. The [`pipeline`](crate::pipeline)
//! decides what to do with a record.

mod assignment;
mod client;
mod complaints;
mod context;
pub mod dead_letter;
mod fetch_errors;
mod gap;
mod headers;
mod ledger;
mod membership;
mod offsets;
mod poll;
mod promptness;
mod ranges;
mod record;
mod restart;
mod sender;
mod topic_identity;
mod topics;
mod went_back;

use std::thread;

use anyhow::Context;
use tokio::sync::oneshot;

pub use assignment::Assignment;
pub use client::{check, client_id};
pub use context::GroupState;
pub use ledger::Ticket;
pub use offsets::{Offsets, PartitionOffsets};
pub use poll::{DrainLimits, Poller, Started, start};
pub use record::{Header, Intake, Received, Record, Timestamp};
pub use topics::create_topics;

/// Runs a blocking Kafka call on its own thread. On a thread of the runtime, the call would delay
/// shutdown while no broker answers. If the caller drops the future, the call continues in the
/// background.
///
/// # Errors
/// The error of `question`, or a failure to start the thread.
pub async fn ask<T: Send + 'static>(
    question: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (say, answer) = oneshot::channel();
    thread::Builder::new()
        .name("kafka-question".to_owned())
        .spawn(move || {
            // The caller may have dropped the future.
            let _ = say.send(question());
        })
        .context("starting a thread")?;
    answer.await.context("the thread ended")?
}
