//! Mechanism: everything that knows librdkafka. What to do with a record is decided in [`pipeline`](crate::pipeline).

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

/// What blocks until Kafka answers, on a thread of its own: one of the runtime's would hold up a shutdown while no broker
/// answers.
///
/// # Errors
/// That of the question, or when there can be no thread.
pub async fn ask<T: Send + 'static>(
    question: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (say, answer) = oneshot::channel();
    thread::Builder::new()
        .name("kafka-question".to_owned())
        .spawn(move || {
            // Whoever wanted to know may be gone.
            let _ = say.send(question());
        })
        .context("starting a thread")?;
    answer.await.context("the thread ended")?
}
