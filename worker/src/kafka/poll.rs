//! The poll thread: it alone polls the consumer, and the rebalance hooks run on it. It may block on the pipeline, which
//! runs on tokio's threads and never waits for it.

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
/// How long the pipeline may have no room before the partitions are paused: pausing throws the prefetch away.
const PATIENCE: Duration = Duration::from_secs(1);
/// Memory is counted in units of so many bytes, one more for each record's own structures.
const MEMORY_UNIT: usize = 1024;

/// How long records that are under way may take to be finished.
#[derive(Clone, Copy, Debug)]
pub struct DrainLimits {
    /// When partitions go to another member: the group waits for us.
    pub revoked: Duration,
    /// When the process ends: nobody takes our partitions before we leave.
    pub shutdown: Duration,
}

/// How long the last commit may be tried.
const LAST_COMMIT: Duration = Duration::from_secs(3);
/// How long the last commit and leaving may take together: both wait for the end of a rebalance, in which the others may
/// still be finishing what they give away.
const LEAVE: Duration = Duration::from_secs(5);

/// The running poll thread.
pub struct Poller {
    stop: Arc<AtomicBool>,
    stopped: oneshot::Receiver<()>,
}

impl Poller {
    /// Takes nothing more in, waits until the pipeline has finished what was taken in, commits, and leaves the group.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // An error means that the thread is gone, which is what was asked for.
        let _ = self.stopped.await;
    }
}

/// What [`start`] sets going.
pub struct Started {
    /// To stop it.
    pub poller: Poller,
    /// Where records come out.
    pub intake: Intake,
    /// Where they are reported as finished.
    pub assignment: Arc<Assignment>,
}

/// Joins the group and starts polling. Records that are taken in and not finished take at most `memory` bytes (a single
/// larger one goes alone).
///
/// # Errors
/// When the configuration is refused by librdkafka or the thread cannot be started.
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
            // Whoever wanted to know may be gone.
            let _ = say_stopped.send(());
        })
        .context("starting the poll thread")?;
    Ok(Started {
        poller: Poller { stop, stopped },
        intake,
        assignment,
    })
}

/// What a consumer is made of.
struct Client {
    config: Kafka,
    topic: Arc<str>,
    assignment: Arc<Assignment>,
    group: Arc<GroupState>,
    metrics: Metrics,
    drain_limit: Duration,
}

impl Client {
    /// Makes a consumer, at which offsets are stored from now on. It is not subscribed yet.
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
    /// Read, and not yet taken in for want of memory; with the assignment under which they were read.
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
                    // Not taken in, so its offset is not stored, and it will be read again.
                    None => break,
                }
            }
        }
        self.leave(drain_limit);
    }

    /// One poll; what it hands out is held.
    fn poll(&mut self, limit: Duration) {
        let context = self.consumer.context();
        context.group.heard();
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

    /// Replaces the consumer by a new one, which knows nothing of the old topic.
    fn renew(&mut self) -> anyhow::Result<()> {
        tracing::warn!("topic was recreated; rejoining the group with a new Kafka client");
        // Behind the fence nothing uses the old consumer any more, and records of the old log are dropped.
        self.assignment.revoke(&self.assigned());
        self.held.clear();
        let consumer = self.client.connect()?;
        self.watch = Watch::new(&consumer)?;
        let old = mem::replace(&mut self.consumer, consumer);
        membership::end(&old, Instant::now() + LEAVE);
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
        // The partition may have been given away while there was no room.
        if let Some(ticket) = self
            .assignment
            .receive(record.partition, epoch, record.offset)
        {
            // The pipeline ends only after this thread.
            let _ = self.sender.send(Received {
                record,
                ticket,
                memory,
            });
        }
    }

    /// Waits for room in the pipeline: at first without polling, then with all partitions paused, for a consumer that
    /// does not poll is thrown out of its group. None when the process is to stop.
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
            // A partition that is assigned meanwhile is not paused.
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

    /// Intake has stopped; what was taken in is finished and stored, then the group is left.
    fn leave(self, drain_limit: Duration) {
        let partitions = self.assigned();
        drop(self.sender);
        if !self.assignment.wait_until_drained(&partitions, drain_limit) {
            tracing::warn!("records were still under way at shutdown; they will be read again");
        }
        // The fence goes up before the last commit and before the group is left, so that a revocation in the middle of
        // either does not wait a second time. What is stored can still be committed.
        self.assignment.revoke(&partitions);
        drop(self.watch);
        // Without a broker each of these would wait for as long as it may.
        if self.consumer.context().group.brokers().is_up() {
            let deadline = Instant::now() + LEAVE;
            self.consumer.context().commit_back(&self.consumer);
            commit_last(&self.consumer);
            if !membership::end(&self.consumer, deadline) {
                tracing::warn!("the group is still rebalancing; it is left in the middle of that");
            }
        }
        drop(self.consumer);
    }
}

/// In the middle of a rebalance the broker takes no offsets, so that is waited for. What is read meanwhile is not taken in.
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

/// The client's error callback has logged what recurs.
fn complain(context: &Context, error: &KafkaError) {
    match error {
        KafkaError::MessageConsumptionFatal(code) => {
            // It would come back at every poll.
            tracing::error!(%code, "Kafka says this client cannot go on; ending the process");
            process::exit(1);
        }
        KafkaError::MessageConsumption(code) => context.fetch_failed(*code),
        other => tracing::warn!(error = %other, "reading from Kafka failed"),
    }
}
