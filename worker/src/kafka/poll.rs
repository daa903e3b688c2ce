//! The poll thread. Only this thread polls the consumer and runs the rebalance hooks. It may block
//! on the pipeline. The pipeline runs on tokio's threads and never waits for this thread.

use std::{
    collections::VecDeque,
    mem, process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use shared::config::Kafka;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    assignment::Assignment,
    client,
    context::{Context, GroupState, commit, report_uncommitted},
    membership,
    promptness::Promptness,
    record::{Intake, Received, Record},
    restart::Watch,
};
use crate::metrics::Metrics;

/// How long one poll waits for a record.
const POLL: Duration = Duration::from_millis(100);
/// How long the thread waits for memory before it pauses the partitions. A pause discards
/// prefetched records.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes per unit of memory. Each record takes one extra unit for its own structures.
const MEMORY_UNIT: usize = 1024;

/// Limits for finishing the records in progress.
#[derive(Clone, Copy, Debug)]
pub struct DrainLimits {
    /// Limit on revocation. The group waits for this worker meanwhile.
    pub revoked: Duration,
    /// Limit at shutdown. No other member takes over the partitions before this worker leaves.
    pub shutdown: Duration,
}

/// Limit for retries of the last commit.
const LAST_COMMIT: Duration = Duration::from_secs(3);
/// Limit for the last commit and leaving the group together. Both wait for the end of a rebalance,
/// in which other members may still be draining.
const LEAVE_GROUP: Duration = Duration::from_secs(5);

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
    let client = Client {
        config: config.clone(),
        topic,
        assignment: Arc::clone(&assignment),
        group,
        metrics,
        drain_limit: drain.revoked,
    };
    let consumer = client.connect()?;
    consumer
        .subscribe(&[&config.topic])
        .context("subscribing")?;

    let (sender, intake) = mpsc::unbounded_channel();
    let units = (memory / MEMORY_UNIT).max(1);
    let stop = Arc::new(AtomicBool::new(false));
    let (say_stopped, stopped) = oneshot::channel();
    let polling = Polling {
        watch: Watch::new(&consumer)?,
        consumer,
        client,
        assignment: Arc::clone(&assignment),
        sender,
        units,
        memory: Arc::new(Semaphore::new(units)),
        stop: Arc::clone(&stop),
        runtime: Handle::current(),
        held: VecDeque::new(),
        promptness: Promptness::new(),
    };
    thread::Builder::new()
        .name("kafka-poll".to_owned())
        .spawn(move || {
            polling.run(drain.shutdown);
            // The caller of `stop` may be gone.
            let _ = say_stopped.send(());
        })
        .context("starting the poll thread")?;
    Ok(Started {
        poller: Poller { stop, stopped },
        intake,
        assignment,
    })
}

/// Everything needed to create a consumer.
struct Client {
    config: Kafka,
    topic: Arc<str>,
    assignment: Arc<Assignment>,
    group: Arc<GroupState>,
    metrics: Metrics,
    drain_limit: Duration,
}

impl Client {
    /// Creates a consumer and attaches it to the assignment, which stores offsets there from now
    /// on. Does not subscribe.
    fn connect(&self) -> anyhow::Result<Arc<BaseConsumer<Context>>> {
        let context = Context {
            topic: Arc::clone(&self.topic),
            assignment: Arc::clone(&self.assignment),
            group: Arc::clone(&self.group),
            metrics: self.metrics.clone(),
            drain_limit: self.drain_limit,
            gaps: Mutex::default(),
            logs: Mutex::default(),
            fetch_errors: Mutex::default(),
            bootstrap: client::bootstrap(&self.config)?,
        };
        let consumer: Arc<BaseConsumer<Context>> = Arc::new(
            client::consumer(&self.config)
                .create_with_context(context)
                .context("Kafka consumer")?,
        );
        self.assignment.attach(&consumer);
        Ok(consumer)
    }
}

struct Polling {
    watch: Watch,
    consumer: Arc<BaseConsumer<Context>>,
    client: Client,
    assignment: Arc<Assignment>,
    sender: mpsc::UnboundedSender<Received>,
    units: usize,
    memory: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
    runtime: Handle,
    /// Polled records that wait for memory, each with the epoch under which it was read.
    held: VecDeque<(Record, u64)>,
    promptness: Promptness,
}

impl Polling {
    fn run(mut self, drain_limit: Duration) {
        while !self.stop.load(Ordering::Relaxed) {
            self.poll(POLL);
            while let Some((record, epoch)) = self.held.pop_front() {
                match self.wait_for_memory(&record) {
                    Some(memory) => self.take_in(record, epoch, memory),
                    // The record did not enter the pipeline, so its offset is not stored and it
                    // will be read again.
                    None => break,
                }
            }
        }
        self.leave(drain_limit);
    }

    /// Polls once, and holds the record that it returns.
    fn poll(&mut self, limit: Duration) {
        let context = self.consumer.context();
        context.group.polled();
        context.bootstrap.restore(self.consumer.client());
        match self.consumer.poll(limit) {
            None => {}
            Some(Ok(message)) => {
                if context.received(message.partition(), message.offset())
                    && let Some(epoch) = self.assignment.epoch(message.partition())
                {
                    self.held
                        .push_back((Record::copy(&message, &self.client.topic), epoch));
                }
            }
            Some(Err(error)) => complain(context, &error),
        }
        self.promptness.keep(&self.consumer, &self.client.topic);
        if !self.watch.tick(&self.consumer)
            && let Err(error) = self.renew()
        {
            tracing::error!(
                error = format!("{error:#}"),
                "no new Kafka client; ending the process"
            );
            process::exit(1);
        }
    }

    /// Replaces the consumer with a new one that has no state of the old topic.
    fn renew(&mut self) -> anyhow::Result<()> {
        tracing::warn!("topic was recreated; rejoining the group with a new Kafka client");
        // The fence stops every other use of the old consumer. Records of the old log are dropped.
        self.assignment.revoke(&self.assigned());
        self.held.clear();
        let consumer = self.client.connect()?;
        self.watch = Watch::new(&consumer)?;
        let old = mem::replace(&mut self.consumer, consumer);
        membership::end(&old, Instant::now() + LEAVE_GROUP);
        drop(old);
        self.consumer
            .subscribe(&[&self.client.topic])
            .context("subscribing")
    }

    fn assigned(&self) -> Vec<i32> {
        let progress = self.assignment.progress();
        progress.iter().map(|(partition, ..)| *partition).collect()
    }

    fn take_in(&self, record: Record, epoch: u64, memory: OwnedSemaphorePermit) {
        // The partition may have been revoked while the record waited for memory.
        if let Some(ticket) = self
            .assignment
            .receive(record.partition, epoch, record.offset)
        {
            // Cannot fail: the pipeline ends only after this thread.
            let _ = self.sender.send(Received {
                record,
                ticket,
                memory,
            });
        }
    }

    /// Waits for memory. First waits without polling, then pauses all partitions and keeps polling,
    /// because the group removes a consumer that does not poll. Returns none when the process
    /// stops.
    fn wait_for_memory(&mut self, record: &Record) -> Option<OwnedSemaphorePermit> {
        let units = (record.size() / MEMORY_UNIT + 1).min(self.units) as u32;
        if let Ok(permit) = Arc::clone(&self.memory).try_acquire_many_owned(units) {
            return Some(permit);
        }
        if let Some(permit) = self.acquire(units, PATIENCE) {
            return Some(permit);
        }
        let mut paused_at = None;
        let permit = loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            // Partitions assigned meanwhile are not paused yet.
            let assignments = self.assignment.assignments();
            if paused_at.replace(assignments) != Some(assignments) {
                self.pause(true);
            }
            self.poll(Duration::ZERO);
            if let Some(permit) = self.acquire(units, POLL) {
                break permit;
            }
        };
        self.pause(false);
        Some(permit)
    }

    fn acquire(&self, units: u32, limit: Duration) -> Option<OwnedSemaphorePermit> {
        let acquired = self.runtime.block_on(async {
            timeout(limit, Arc::clone(&self.memory).acquire_many_owned(units)).await
        });
        acquired.ok()?.ok()
    }

    fn pause(&self, pause: bool) {
        let result = self
            .consumer
            .assignment()
            .and_then(|partitions| match pause {
                true => self.consumer.pause(&partitions),
                false => self.consumer.resume(&partitions),
            });
        if let Err(error) = result {
            tracing::warn!(pause, %error, "partitions could not be paused or resumed");
        }
    }

    /// Drains and stores the records in progress, commits, then leaves the group. Intake has
    /// already stopped.
    fn leave(self, drain_limit: Duration) {
        let partitions = self.assigned();
        drop(self.sender);
        if !self.assignment.wait_until_drained(&partitions, drain_limit) {
            tracing::warn!("records were still under way at shutdown; they will be read again");
        }
        // The fence goes up before the last commit and before leaving, so that a revocation during
        // either does not drain again. Stored offsets can still be committed.
        self.assignment.revoke(&partitions);
        drop(self.watch);
        // Without a broker, each of these calls would wait until its time limit.
        if self.consumer.context().group.brokers().is_up() {
            let deadline = Instant::now() + LEAVE_GROUP;
            self.consumer.context().commit_back(&self.consumer);
            commit_last(&self.consumer);
            if !membership::end(&self.consumer, deadline) {
                tracing::warn!("the group is still rebalancing; it is left in the middle of that");
            }
        }
        drop(self.consumer);
    }
}

/// Commits the stored offsets. Retries until [`LAST_COMMIT`], because the broker rejects commits
/// during a rebalance. Records polled meanwhile are dropped.
fn commit_last(consumer: &BaseConsumer<Context>) {
    let deadline = Instant::now() + LAST_COMMIT;
    while let Err(error) = commit(consumer) {
        if Instant::now() >= deadline {
            report_uncommitted(&error);
            return;
        }
        // Serves the rebalance.
        consumer.poll(POLL);
    }
}

/// Handles a poll error. The client's error callback has already logged recurring errors.
fn complain(context: &Context, error: &KafkaError) {
    match error {
        KafkaError::MessageConsumptionFatal(code) => {
            // Every later poll would return the same error.
            tracing::error!(%code, "Kafka says this client cannot go on; ending the process");
            process::exit(1);
        }
        KafkaError::MessageConsumption(code) => context.fetch_failed(*code),
        other => tracing::warn!(error = %other, "reading from Kafka failed"),
    }
}
