//! Restarts partitions that went back: reads them from their beginning, and moves their committed
//! offsets back. Runs on the poll thread.
//!
//! librdkafka's timer commits a stored offset only if it is greater than the committed one. So the
//! first commit of the new log is an explicit one. The stored offset moves back before that, so the
//! timer commits nothing first.

use std::time::{Duration, Instant};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
};
use shared::telemetry::listed;

use super::{
    context::Context,
    topic_identity::{IdRequests, TopicId},
    went_back::{Committed, WentBack},
};

/// Interval between requests for the topic id.
const IDENTIFY: Duration = Duration::from_secs(2);
/// Pause before a failed restart is retried.
const RETRY: Duration = Duration::from_millis(500);
/// Limit for one request to the brokers.
const ANSWER: Duration = Duration::from_secs(1);

/// Detects partitions that went back and restarts them, between two polls.
pub(super) struct Watch {
    requests: IdRequests,
    next_request: Instant,
    next_try: Instant,
}

impl Watch {
    /// Watches the partitions of `consumer`. Drop it before `consumer`.
    ///
    /// # Errors
    /// When the topic name contains a zero byte.
    pub(super) fn new(consumer: &BaseConsumer<Context>) -> anyhow::Result<Self> {
        let topic = &consumer.context().topic;
        Ok(Self {
            requests: IdRequests::new(consumer.client(), topic)?,
            next_request: Instant::now() + IDENTIFY,
            next_try: Instant::now(),
        })
    }

    /// Requests the topic id every two seconds, and restarts partitions that went back.
    ///
    /// Returns false if the topic was recreated, because this client can no longer read it:
    /// librdkafka keeps the leader epochs of the old topic and ignores the lower epochs of the new
    /// topic.
    #[must_use]
    pub(super) fn tick(&mut self, consumer: &BaseConsumer<Context>) -> bool {
        let context = consumer.context();
        let now = Instant::now();
        if let Some(id) = self.requests.receive(Duration::ZERO) {
            context.logs().identify(id);
        }
        if now >= self.next_request {
            self.requests.send(consumer.client());
            self.next_request = now + IDENTIFY;
        }
        if context.logs().all_continue() && !context.logs().is_recreated() {
            return true;
        }
        context.fence();
        if context.logs().is_recreated() {
            return false;
        }
        if now >= self.next_try && context.group.brokers().is_up() {
            self.next_try = now + RETRY;
            context.confirm_ends(consumer);
            context.restart(consumer);
            context.commit_back(consumer);
        }
        true
    }
}

impl Context {
    /// Compares the committed offsets of an assignment with the topic id and the ends of the logs.
    /// `committed` is a list without offsets if the broker did not return them.
    pub(super) fn compare(&self, consumer: &BaseConsumer<Self>, committed: &TopicPartitionList) {
        if let Some(id) = self.identify(consumer) {
            self.logs().identify(id);
        }
        let ends = self.ends(consumer, committed);
        let mut unidentified = Vec::new();
        let mut logs = self.logs();
        for element in committed.elements_for_topic(&self.topic) {
            let partition = element.partition();
            let at = match element.offset() {
                Offset::Offset(offset) => Some(Committed {
                    offset,
                    id: TopicId::from_metadata(element.metadata()),
                }),
                _ => None,
            };
            if at.as_ref().is_some_and(|at| at.id.is_none()) {
                unidentified.push(partition);
            }
            let end = ends
                .as_ref()
                .and_then(|ends| offset_of(ends, &self.topic, partition));
            logs.assign(partition, at, end);
            self.metrics.partition_went_back(partition, 0);
        }
        if !unidentified.is_empty() {
            tracing::info!(
                partitions = listed(&unidentified),
                "committed offsets without a topic id; cannot detect an earlier recreation"
            );
        }
    }

    fn identify(&self, consumer: &BaseConsumer<Self>) -> Option<TopicId> {
        let mut request = IdRequests::new(consumer.client(), &self.topic).ok()?;
        request.send(consumer.client());
        request.receive(ANSWER)
    }

    /// Fetches the ends of the partitions that have a committed offset, in one request for each
    /// broker. Other partitions have no offset to compare. A topic that was just created has no
    /// leaders that could return its ends.
    fn ends(
        &self,
        consumer: &BaseConsumer<Self>,
        committed: &TopicPartitionList,
    ) -> Option<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(committed.count());
        let elements = committed.elements_for_topic(&self.topic);
        let is_committed = |offset| matches!(offset, Offset::Offset(_));
        for element in elements.iter().filter(|it| is_committed(it.offset())) {
            // In place of a time, `End` requests the end of the log.
            list.add_partition_offset(&self.topic, element.partition(), Offset::End)
                .ok()?;
        }
        if list.count() == 0 {
            return None;
        }
        match consumer.offsets_for_times(list, ANSWER) {
            Ok(ends) => Some(ends),
            Err(error) => {
                tracing::warn!(%error, "ends of partitions unknown; cannot detect a truncated log");
                None
            }
        }
    }

    /// Ends the assignment of partitions that went back, so that records of the old log store no
    /// offsets.
    pub(super) fn fence(&self) {
        let gone_back = self.logs().gone_back();
        for WentBack {
            partition,
            expected,
            cause,
        } in gone_back
        {
            if self.assignment.epoch(partition).is_none() {
                continue;
            }
            self.assignment.revoke(&[partition]);
            self.metrics.partition_went_back(partition, 1);
            tracing::error!(
                partition,
                expected,
                %cause,
                runbook = "PartitionWentBack",
                "partition went back; reading it from its beginning"
            );
        }
    }

    /// Requests the ends that seem too low from the brokers, because statistics may be out of date.
    fn confirm_ends(&self, consumer: &BaseConsumer<Self>) {
        let suspects = self.logs().suspects();
        for partition in suspects {
            if let Ok((_, end)) = consumer.fetch_watermarks(&self.topic, partition, ANSWER) {
                self.logs().ends(partition, end);
            }
        }
        self.fence();
    }

    fn restart(&self, consumer: &BaseConsumer<Self>) {
        let gone_back = self.logs().gone_back();
        for WentBack { partition, .. } in gone_back {
            match self.restart_one(consumer, partition) {
                Ok((start, end)) => tracing::warn!(partition, start, end, "partition restarted"),
                Err(error) => {
                    tracing::warn!(partition, %error, "restarting partition failed; retrying")
                }
            }
        }
    }

    /// Moves the consumer to the beginning of the log, and begins an assignment from there. Returns
    /// the beginning and the end of the log.
    fn restart_one(
        &self,
        consumer: &BaseConsumer<Self>,
        partition: i32,
    ) -> Result<(i64, i64), KafkaError> {
        let (start, end) = consumer.fetch_watermarks(&self.topic, partition, ANSWER)?;
        consumer.seek(&self.topic, partition, Offset::Offset(start), ANSWER)?;
        self.logs().restarted(partition, start);
        self.gaps().assign(partition, None);
        let id = self.logs().id(partition).cloned();
        self.assignment.assign(partition, id);
        // Otherwise the timer would commit the old offset again after the explicit commit.
        self.assignment.store(consumer, &[(partition, start)]);
        Ok((start, end))
    }

    /// Commits the offsets of restarted partitions, in place of the offsets of their old logs.
    pub(super) fn commit_back(&self, consumer: &BaseConsumer<Self>) {
        let uncommitted = self.logs().uncommitted();
        if uncommitted.is_empty() {
            return;
        }
        let progress = self.assignment.progress();
        let offsets = uncommitted.iter().map(|(partition, start)| {
            let progress = progress.iter().find(|it| it.partition == *partition);
            let finished = progress.and_then(|progress| progress.frontier);
            (*partition, finished.unwrap_or(*start))
        });
        let offsets: Vec<(i32, i64)> = offsets.collect();
        let committed = self
            .assignment
            .offsets(&offsets)
            .and_then(|list| consumer.commit(&list, CommitMode::Sync));
        match committed {
            Ok(()) => {
                let mut logs = self.logs();
                offsets
                    .iter()
                    .for_each(|(partition, _)| logs.committed(*partition));
                tracing::info!(?offsets, "moved committed offsets back");
            }
            Err(error) => {
                tracing::warn!(?offsets, %error, "moving committed offsets back failed; retrying");
            }
        }
    }
}

fn offset_of(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
    let element = list.find_partition(topic, partition)?;
    match (element.error(), element.offset()) {
        (Ok(()), Offset::Offset(offset)) => Some(offset),
        _ => None,
    }
}
