//! Starts the poll thread, and stops it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use shared::config::Kafka;
use tokio::sync::{mpsc, oneshot};

use super::{
    assignment::Assignment, consumer::ConsumerFactory, group_state::GroupState, memory::Memory,
    poll::Polling, record::Intake,
};
use crate::metrics::Metrics;

/// Limits for finishing the records in progress.
#[derive(Clone, Copy, Debug)]
pub struct DrainLimits {
    /// Limit on revocation. The group waits for this worker meanwhile.
    pub revoked: Duration,
    /// Limit at shutdown. No other member takes over the partitions before this worker leaves.
    pub shutdown: Duration,
}

/// Handle of the running poll thread.
pub struct Poller {
    stop: Arc<AtomicBool>,
    stopped: oneshot::Receiver<()>,
}

impl Poller {
    /// Stops intake, drains the pipeline, commits, and leaves the group.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // An error means that the thread has already ended.
        let _ = self.stopped.await;
    }
}

/// The result of [`start`].
pub struct Started {
    /// Handle that stops the thread.
    pub poller: Poller,
    /// The receiver of polled records.
    pub intake: Intake,
    /// Takes the tickets of finished records.
    pub assignment: Arc<Assignment>,
}

/// Joins the group and starts the poll thread. Unfinished records take at most `memory` bytes. A
/// single larger record waits until it is the only one.
///
/// # Errors
/// When librdkafka rejects the configuration, or the thread cannot be started.
///
/// # Panics
/// Outside a tokio runtime.
pub fn start(
    config: &Kafka,
    memory: usize,
    drain: DrainLimits,
    group: Arc<GroupState>,
    metrics: Metrics,
) -> anyhow::Result<Started> {
    let topic: Arc<str> = config.topic.as_str().into();
    let assignment = Arc::new(Assignment::new(Arc::clone(&topic)));
    let factory = ConsumerFactory {
        config: config.clone(),
        topic,
        assignment: Arc::clone(&assignment),
        group,
        metrics,
        drain_limit: drain.revoked,
    };
    let (sender, intake) = mpsc::unbounded_channel();
    let stop = Arc::new(AtomicBool::new(false));
    let polling = Polling::start(factory, sender, Memory::new(memory), Arc::clone(&stop))?;
    let (say_stopped, stopped) = oneshot::channel();
    thread::Builder::new()
        .name("kafka-poll".to_owned())
        .spawn(move || {
            polling.run(drain.shutdown);
            // The caller of `stop` may be gone.
            let _ = say_stopped.send(());
        })
        .context("cannot start the poll thread")?;
    Ok(Started {
        poller: Poller { stop, stopped },
        intake,
        assignment,
    })
}
