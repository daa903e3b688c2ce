//! Callbacks for rebalances: begins and ends the assignment of partitions.

use std::time::Duration;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::KafkaError,
};
use shared::{fault::Moment, telemetry::listed};

use super::context::{Context, commit, report_uncommitted};

/// Limit for fetching the committed offsets of an assignment. It takes one round trip unless the
/// coordinator is down.
const COMMITTED: Duration = Duration::from_secs(1);

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.take_over(consumer, list),
            Rebalance::Revoke(list) => self.give_away(consumer, &self.partitions(list)),
            Rebalance::Error(error) => self.release_all(error),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            self.group.assigned();
        }
    }
}

impl Context {
    /// Begins the assignment of the partitions in `list`.
    fn take_over(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = self.partitions(list);
        // A rebalance that moves none of our partitions assigns an empty list.
        if partitions.is_empty() {
            return;
        }
        self.compare_with_committed(consumer, list);
        for partition in &partitions {
            let id = self.logs().id(*partition).cloned();
            self.assignment.assign(*partition, id);
        }
        self.fence();
        tracing::info!(partitions = listed(&partitions), "partitions assigned");
    }

    /// Fetches the committed offsets before the first record of the assignment moves them. Later
    /// records are compared with these, to detect gaps and logs that went back.
    fn compare_with_committed(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let committed = consumer.committed_offsets(list.clone(), COMMITTED);
        if let Err(error) = &committed {
            tracing::warn!(%error, "committed offsets unknown; cannot detect deleted records");
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

    /// Drains and commits `partitions`, then raises the fence. No record is received meanwhile,
    /// because this runs inside the poll. If the assignment is already lost, raises the fence at
    /// once.
    fn give_away(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        Moment::InsideRevoke.pass();
        if consumer.assignment_lost() {
            tracing::warn!(
                partitions = listed(partitions),
                "partitions lost; their unfinished records will be read again"
            );
            self.group.removed();
        } else {
            self.drain(consumer, partitions);
        }
        self.assignment.revoke(partitions);
        self.forget(partitions);
        if !partitions.is_empty() {
            tracing::info!(partitions = listed(partitions), "partitions revoked");
        }
    }

    /// Drops what is known of the logs of `partitions`, and resets their metrics.
    fn forget(&self, partitions: &[i32]) {
        for partition in partitions {
            self.gaps().revoke(*partition);
            self.logs().revoke(*partition);
            self.metrics.lag(*partition, 0);
            self.metrics.unreadable(*partition, false);
        }
    }

    fn drain(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let limit = self.drain_limit;
        if !self.assignment.wait_until_drained(partitions, limit) {
            tracing::warn!(
                partitions = listed(partitions),
                ?limit,
                "draining revoked partitions timed out; unfinished records will be read again"
            );
        }
        self.commit_back(consumer);
        if let Err(error) = commit(consumer) {
            report_uncommitted(&error);
        }
    }

    fn release_all(&self, error: &KafkaError) {
        tracing::error!(%error, "rebalance failed; releasing all partitions");
        let all = self.assignment.partitions();
        self.assignment.revoke(&all);
        self.forget(&all);
    }
}
