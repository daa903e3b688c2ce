//! Callbacks of librdkafka: rebalances, statistics, errors. All of them run on the poll thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
    statistics::{ConsumerGroup, Partition},
};
use shared::{fault::Moment, kafka::Bootstrap, runtime::health::Dependency, telemetry::listed};

use super::{
    assignment::Assignment,
    client, complaints,
    fetch_errors::{Change, FetchErrors, Fetching},
    gap::Gaps,
    went_back::Logs,
};
use crate::metrics::Metrics;

/// State of the consumer group and the brokers, for the rest of the process.
pub struct GroupState {
    member: AtomicBool,
    /// Assignments so far, including those without partitions.
    rounds: AtomicU64,
    lag: AtomicI64,
    lagging_since: Mutex<Option<Instant>>,
    /// When the poll thread last reported that it is alive. None before the thread runs.
    last_poll: Mutex<Option<Instant>>,
    /// Partitions that cannot be read although brokers answer, with their errors.
    unreadable: Mutex<BTreeMap<i32, String>>,
    brokers: Dependency,
}

impl GroupState {
    /// Creates the state of a process that has no information yet.
    pub fn new() -> Self {
        Self {
            member: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            lag: AtomicI64::new(0),
            lagging_since: Mutex::new(None),
            last_poll: Mutex::new(None),
            unreadable: Mutex::default(),
            brokers: Dependency::new("kafka", "kafka_up"),
        }
    }

    /// Whether this process is a member of the group, with or without partitions.
    pub fn is_member(&self) -> bool {
        self.member.load(Ordering::Relaxed)
    }

    /// Number of unfinished records in the assigned partitions, about one second old.
    pub fn lag(&self) -> i64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// How long there has been readable lag while a broker was up.
    pub fn lagging_for(&self) -> Duration {
        let since = *self
            .lagging_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// The number of assignments so far, including those without partitions.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Time since the poll thread last reported that it is alive. Zero before the thread runs.
    pub fn silent_for(&self) -> Duration {
        let last_poll = *self
            .last_poll
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last_poll
            .map(|last_poll| last_poll.elapsed())
            .unwrap_or_default()
    }

    /// Notes that the poll thread is alive.
    pub(super) fn polled(&self) {
        *self
            .last_poll
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Assigned partitions that cannot be read although brokers answer, with their errors.
    pub fn unreadable(&self) -> BTreeMap<i32, String> {
        let unreadable = self.unreadable.lock();
        unreadable.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_unreadable(&self, partitions: BTreeMap<i32, String>) {
        let mut unreadable = self
            .unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *unreadable = partitions;
    }

    /// Sets the lag. `readable` is the part of `lag` outside the partitions whose fetches fail.
    /// Only that part counts as lagging, because a restart does not repair a failing fetch.
    fn set_lag(&self, lag: i64, readable: i64) {
        self.lag.store(lag, Ordering::Relaxed);
        let mut since = self
            .lagging_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *since = match (readable > 0 && self.brokers.is_up(), *since) {
            (false, _) => None,
            (true, None) => Some(Instant::now()),
            (true, earlier) => earlier,
        };
    }

    /// Updates the membership. A rebalance does not end it. Removal from the group or loss of the
    /// coordinator does.
    fn set_membership(&self, group: &ConsumerGroup) {
        if group.state != "up" || group.join_state == "init" {
            self.member.store(false, Ordering::Relaxed);
        } else if group.join_state == "steady" {
            self.member.store(true, Ordering::Relaxed);
        }
    }

    /// State of the connection to the brokers.
    pub fn brokers(&self) -> &Dependency {
        &self.brokers
    }
}

impl Default for GroupState {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) struct Context {
    pub(super) topic: Arc<str>,
    pub(super) assignment: Arc<Assignment>,
    pub(super) group: Arc<GroupState>,
    pub(super) metrics: Metrics,
    /// Limit for draining a revoked partition.
    pub(super) drain_limit: Duration,
    pub(super) gaps: Mutex<Gaps>,
    pub(super) logs: Mutex<Logs>,
    pub(super) fetch_errors: Mutex<FetchErrors>,
    pub(super) bootstrap: Bootstrap,
}

/// Limit for fetching the committed offsets of an assignment. It takes one round trip unless the
/// coordinator is down.
const COMMITTED: Duration = Duration::from_secs(1);

impl Context {
    /// Notes the offset of a polled record. Returns whether the record may enter the pipeline.
    pub(super) fn received(&self, partition: i32, offset: i64) -> bool {
        let continues = self.logs().received(partition, offset);
        if continues {
            self.gaps().received(partition, offset);
        }
        continues
    }

    /// Counts a failed fetch. Keeps its error code unless the code belongs to an outage.
    pub(super) fn fetch_failed(&self, code: RDKafkaErrorCode) {
        self.metrics.fetch_error(&complaints::name(code));
        if !complaints::is_outage(code) {
            self.fetch_errors().failed(complaints::name(code));
        }
    }

    /// Finds the assigned partitions that cannot be read, and logs the changes.
    fn look_for_fetch_errors<'a>(&self, assigned: impl Iterator<Item = &'a Partition>) {
        let fetching = assigned.map(|partition| Fetching {
            partition: partition.partition,
            next: partition.next_offset,
            end: partition.ls_offset,
            idle: partition.fetchq_cnt == 0,
        });
        let mut errors = self.fetch_errors();
        for change in errors.look(fetching) {
            match change {
                Change::Failing {
                    partition,
                    offset,
                    codes,
                } => tracing::error!(
                    partition,
                    offset,
                    codes,
                    runbook = "WorkerPartitionUnreadable",
                    "partition cannot be read; retrying"
                ),
                Change::Recovered { partition, offset } => {
                    tracing::info!(partition, offset, "partition can be read again");
                }
            }
        }
        self.group.set_unreadable(errors.failing());
    }

    fn fetch_errors(&self) -> MutexGuard<'_, FetchErrors> {
        self.fetch_errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the committed offsets before the first record of the assignment moves them.
    fn watch_for_gaps(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        if list.count() == 0 {
            return;
        }
        let committed = consumer.committed_offsets(list.clone(), COMMITTED);
        if let Err(error) = &committed {
            tracing::warn!(%error, "the committed offsets are not known; records that were deleted above them would not be noticed");
        }
        let committed = committed.as_ref().unwrap_or(list);
        self.compare(consumer, committed);
        let mut gaps = self.gaps();
        for element in committed.elements() {
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            gaps.assign(element.partition(), offset);
        }
    }

    fn look_for_gaps(&self, statistics: &Partition) {
        let partition = statistics.partition;
        // Negative before the first successful fetch and after a failed one.
        let Some(log_start) = Some(statistics.lo_offset).filter(|offset| *offset >= 0) else {
            return;
        };
        let idle = statistics.fetchq_cnt == 0;
        for gap in self.gaps().looked(partition, log_start, idle) {
            let records = gap.end - gap.start;
            tracing::error!(
                partition,
                from = gap.start,
                to = gap.end,
                records,
                "records were deleted from Kafka before this group had read them: they are lost to this system"
            );
            self.metrics.offset_gap(records.unsigned_abs());
        }
    }

    pub(super) fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<i32> {
        list.elements_for_topic(&self.topic)
            .iter()
            .map(|element| element.partition())
            .collect()
    }

    /// Drains and commits `partitions`, then raises the fence. No record is received meanwhile,
    /// because this runs inside the poll. If the assignment is already lost, raises the fence at
    /// once.
    fn give_away(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        Moment::InsideRevoke.pass();
        if consumer.assignment_lost() {
            tracing::warn!(
                partitions = listed(partitions),
                "partitions were lost; what is under way for them is not stored"
            );
            self.group.member.store(false, Ordering::Relaxed);
        } else {
            if !self
                .assignment
                .wait_until_drained(partitions, self.drain_limit)
            {
                tracing::warn!(partitions = listed(partitions), limit = ?self.drain_limit, "partitions were revoked before all their records were finished; the rest will be read again");
            }
            self.commit_back(consumer);
            if let Err(error) = commit(consumer) {
                report_uncommitted(&error);
            }
        }
        self.assignment.revoke(partitions);
        for partition in partitions {
            self.gaps().revoke(*partition);
            self.logs().revoke(*partition);
            self.metrics.lag(*partition, 0);
            self.metrics.unreadable(*partition, false);
        }
        if !partitions.is_empty() {
            tracing::info!(partitions = listed(partitions), "partitions were revoked");
        }
    }

    /// Number of records between the frontier and the end of the partition.
    fn lag(&self, statistics: &Partition, frontier: Option<i64>, outstanding: usize) -> i64 {
        // Up to the last stable offset: the consumer does not return records of an open
        // transaction.
        let (low, high) = (statistics.lo_offset, statistics.ls_offset);
        if high < 0 {
            return 0;
        }
        // Control records take offsets before the end, but the consumer never returns them. If
        // every record was fetched and finished, there is no lag, even where the frontier is below
        // the end.
        if outstanding == 0 && statistics.fetchq_cnt == 0 && statistics.next_offset >= high {
            return 0;
        }
        let done = frontier.unwrap_or(statistics.committed_offset).max(low);
        (high - done).max(0)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        complaints::log(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        self.bootstrap.look(&statistics);
        let up = statistics
            .brokers
            .values()
            .any(|broker| broker.nodeid >= 0 && broker.state == "UP");
        self.group.brokers.set(if up {
            Ok(())
        } else {
            Err(&"no connection to any broker")
        });
        if let Some(group) = &statistics.cgrp {
            self.group.set_membership(group);
        }
        let Some(topic) = statistics.topics.get(&*self.topic) else {
            return;
        };
        let progress = self.assignment.progress();
        let assigned = progress.iter().map(|(partition, ..)| partition);
        self.look_for_fetch_errors(
            assigned.filter_map(|partition| topic.partitions.get(partition)),
        );
        let unreadable = self.group.unreadable();
        let (mut total, mut readable) = (0, 0);
        for (partition, frontier, outstanding) in progress {
            let Some(of_partition) = topic.partitions.get(&partition) else {
                continue;
            };
            self.look_for_gaps(of_partition);
            // Negative before the first successful fetch and after a failed one.
            if of_partition.hi_offset >= 0 {
                self.logs().seems_to_end(partition, of_partition.hi_offset);
            }
            let lag = self.lag(of_partition, frontier, outstanding);
            self.metrics.lag(partition, lag);
            if let Some(frontier) = frontier {
                self.metrics.stored_offset(partition, frontier);
            }
            total += lag;
            let is_unreadable = unreadable.contains_key(&partition);
            self.metrics.unreadable(partition, is_unreadable);
            if !is_unreadable {
                readable += lag;
            }
        }
        self.group.set_lag(total, readable);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.group.brokers.set(Err(&"no broker answers"));
        }
        client::report(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let partitions = self.partitions(list);
                self.watch_for_gaps(consumer, list);
                for partition in &partitions {
                    let id = self.logs().id(*partition).cloned();
                    self.assignment.assign(*partition, id);
                }
                self.fence();
                // A rebalance that moves none of our partitions assigns an empty list.
                if !partitions.is_empty() {
                    tracing::info!(partitions = listed(&partitions), "partitions were assigned");
                }
            }
            Rebalance::Revoke(list) => self.give_away(consumer, &self.partitions(list)),
            Rebalance::Error(error) => {
                tracing::error!(%error, "the rebalance failed; giving up all partitions");
                let all: Vec<i32> = self
                    .assignment
                    .progress()
                    .iter()
                    .map(|(partition, ..)| *partition)
                    .collect();
                self.assignment.revoke(&all);
                all.iter()
                    .for_each(|partition| self.logs().revoke(*partition));
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            self.group.member.store(true, Ordering::Relaxed);
            self.group.rounds.fetch_add(1, Ordering::Relaxed);
            // An assignment proves that a broker answers. A worker that stops before its first
            // statistics leaves the group only if this is set.
            self.group.brokers.set(Ok(()));
        }
    }
}

/// Commits the stored offsets. The timer would take up to a second, and by then another member owns
/// the partitions. Returns success if there is nothing to commit.
///
/// # Errors
/// When the broker rejects the commit, for example during a rebalance.
pub(super) fn commit(consumer: &BaseConsumer<Context>) -> Result<(), KafkaError> {
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
        result => result,
    }
}

pub(super) fn report_uncommitted(error: &KafkaError) {
    tracing::warn!(%error, "offsets were not committed; their records will be read again");
}
