//! The poll thread. Only this thread polls the consumer and runs the rebalance hooks. It may block
//! on the pipeline. The pipeline runs on tokio's threads and never waits for this thread.

use std::{
    collections::VecDeque,
    mem, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    assignment::Assignment,
    client,
    consumer::ConsumerFactory,
    context::{Context, commit, report_uncommitted},
    membership,
    memory::Memory,
    promptness::Promptness,
    record::{Received, Record},
    restart::Watch,
};

/// How long one poll waits for a record.
const POLL: Duration = Duration::from_millis(100);
/// How long the thread waits for memory before it pauses the partitions. A pause discards
/// prefetched records.
const PATIENCE: Duration = Duration::from_secs(1);
/// Limit for retries of the last commit.
const LAST_COMMIT: Duration = Duration::from_secs(3);
/// Limit for the last commit and leaving the group together. Both wait for the end of a rebalance,
/// in which other members may still be draining.
const LEAVE_GROUP: Duration = Duration::from_secs(5);

/// The poll thread's own state.
pub(super) struct Polling {
    watch: Watch,
    consumer: Arc<BaseConsumer<Context>>,
    factory: ConsumerFactory,
    assignment: Arc<Assignment>,
    sender: mpsc::UnboundedSender<Received>,
    memory: Memory,
    stop: Arc<AtomicBool>,
    /// Polled records that wait for memory, each with the epoch under which it was read.
    held: VecDeque<(Record, u64)>,
    promptness: Promptness,
}

impl Polling {
    /// Joins the group. Records go to `sender` until `stop` is set.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub(super) fn start(
        factory: ConsumerFactory,
        sender: mpsc::UnboundedSender<Received>,
        memory: Memory,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let consumer = factory.create()?;
        subscribe(&consumer)?;
        Ok(Self {
            watch: Watch::new(&consumer)?,
            consumer,
            assignment: Arc::clone(&factory.assignment),
            factory,
            sender,
            memory,
            stop,
            held: VecDeque::new(),
            promptness: Promptness::new(),
        })
    }

    /// Polls until the process stops, then leaves the group.
    pub(super) fn run(mut self, drain_limit: Duration) {
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
                        .push_back((Record::copy(&message, &context.topic), epoch));
                }
            }
            Some(Err(error)) => handle_poll_error(context, &error),
        }
        self.promptness.keep(&self.consumer, &self.factory.topic);
        let renewed = if self.watch.tick(&self.consumer) {
            self.follow_certificates()
        } else {
            self.renew()
        };
        if let Err(error) = renewed {
            tracing::error!(
                error = format!("{error:#}"),
                "creating a new Kafka client failed; exiting"
            );
            process::exit(1);
        }
    }

    /// Replaces the consumer with a new one that has no state of the old topic.
    fn renew(&mut self) -> anyhow::Result<()> {
        tracing::warn!("topic recreated; rejoining the group with a new Kafka client");
        // The fence stops every other use of the old consumer. Records of the old log are dropped.
        self.assignment.revoke(&self.assignment.partitions());
        self.held.clear();
        let consumer = self.factory.create()?;
        self.watch = Watch::new(&consumer)?;
        let old = mem::replace(&mut self.consumer, consumer);
        membership::end(&old, Instant::now() + LEAVE_GROUP);
        drop(old);
        subscribe(&self.consumer)
    }

    /// Replaces the consumer if a certificate file was replaced: librdkafka reads certificates only
    /// when a client is created. Finishes and commits the records in progress first.
    fn follow_certificates(&mut self) -> anyhow::Result<()> {
        let context = self.consumer.context();
        if !context.access.follow(self.consumer.client()) {
            return Ok(());
        }
        if let Err(error) = client::check(&self.factory.config) {
            tracing::error!(
                %error,
                runbook = "CertificateRejected",
                "replaced Kafka certificates cannot be used; keeping the present Kafka client"
            );
            return Ok(());
        }
        tracing::info!("Kafka certificates replaced; rejoining the group with a new Kafka client");
        self.held.clear();
        let partitions = self.assignment.partitions();
        // What is not finished by then is read again.
        self.assignment
            .wait_until_drained(&partitions, self.factory.drain_limit);
        self.assignment.revoke(&partitions);
        let consumer = self.factory.create()?;
        self.watch = Watch::new(&consumer)?;
        let old = mem::replace(&mut self.consumer, consumer);
        if old.context().group.brokers().is_up() {
            commit_last(&old);
            membership::end(&old, Instant::now() + LEAVE_GROUP);
        }
        // Without a broker, closing takes as long as the session timeout.
        thread::Builder::new()
            .name("kafka-close".to_owned())
            .spawn(move || drop(old))
            .context("cannot start a thread")?;
        subscribe(&self.consumer)
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
        let size = record.size();
        if let Some(memory) = self.memory.try_take(size) {
            return Some(memory);
        }
        if let Some(memory) = self.memory.take(size, PATIENCE) {
            return Some(memory);
        }
        let mut paused_at = None;
        let memory = loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            // Partitions assigned meanwhile are not paused yet.
            let assignments = self.assignment.assignments();
            if paused_at.replace(assignments) != Some(assignments) {
                self.pause(true);
            }
            self.poll(Duration::ZERO);
            if let Some(memory) = self.memory.take(size, POLL) {
                break memory;
            }
        };
        self.pause(false);
        Some(memory)
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
            tracing::warn!(pause, %error, "pausing or resuming partitions failed");
        }
    }

    /// Drains and stores the records in progress, commits, then leaves the group. Intake has
    /// already stopped.
    fn leave(self, drain_limit: Duration) {
        let partitions = self.assignment.partitions();
        drop(self.sender);
        if !self.assignment.wait_until_drained(&partitions, drain_limit) {
            tracing::warn!(
                limit = ?drain_limit,
                "draining at shutdown timed out; unfinished records will be read again"
            );
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
                tracing::warn!(limit = ?LEAVE_GROUP, "leaving the group during its rebalance");
            }
        }
        drop(self.consumer);
    }
}

fn subscribe(consumer: &BaseConsumer<Context>) -> anyhow::Result<()> {
    let topic = &*consumer.context().topic;
    consumer
        .subscribe(&[topic])
        .with_context(|| format!("cannot subscribe to the topic {topic}"))
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
fn handle_poll_error(context: &Context, error: &KafkaError) {
    match error {
        KafkaError::MessageConsumptionFatal(code) => {
            // Every later poll would return the same error.
            tracing::error!(%code, "fatal error of the Kafka client; exiting");
            process::exit(1);
        }
        KafkaError::MessageConsumption(code @ RDKafkaErrorCode::InvalidSessionTimeout) => {
            tracing::error!(
                %code,
                variable = "KAFKA_SESSION_TIMEOUT",
                broker_settings = "group.min.session.timeout.ms, group.max.session.timeout.ms",
                "the brokers reject the session timeout; exiting"
            );
            process::exit(1);
        }
        KafkaError::MessageConsumption(code) => context.fetch_failed(*code),
        other => tracing::warn!(error = %other, "polling Kafka failed"),
    }
}
