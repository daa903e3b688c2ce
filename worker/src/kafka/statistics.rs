//! Callbacks for librdkafka's logs, errors and statistics. The statistics, once a second, update
//! the lag, the membership, and the detection of deleted records, unreadable partitions and logs
//! that end too early.

use std::collections::BTreeMap;

use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    statistics::{Partition, Topic},
};

use super::{
    client,
    context::Context,
    error_log,
    fetch_errors::{Change, Fetching},
};

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        error_log::log(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        self.bootstrap.observe(&statistics);
        let mut brokers = statistics.brokers.values();
        let connected = brokers.any(|broker| broker.nodeid >= 0 && broker.state == "UP");
        self.group.set_connected(connected);
        if let Some(group) = &statistics.cgrp {
            self.group.set_membership(group);
        }
        if let Some(topic) = statistics.topics.get(&*self.topic) {
            self.check(topic);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.group.brokers().set(Err(&"no broker answers"));
        }
        client::report(&error, reason);
    }
}

impl Context {
    /// Checks every assigned partition of the topic.
    fn check(&self, topic: &Topic) {
        let progress = self.assignment.progress();
        let assigned = progress
            .iter()
            .filter_map(|progress| Some((progress, topic.partitions.get(&progress.partition)?)));
        let unreadable =
            self.check_fetch_errors(assigned.clone().map(|(_, statistics)| statistics));
        let (mut total, mut readable) = (0, 0);
        for (progress, statistics) in assigned {
            let partition = progress.partition;
            self.check_gaps(statistics);
            // Negative before the first successful fetch and after a failed one.
            if statistics.hi_offset >= 0 {
                self.logs().seems_to_end(partition, statistics.hi_offset);
            }
            if let Some(frontier) = progress.frontier {
                self.metrics.stored_offset(partition, frontier);
            }
            let lag = lag(statistics, progress.frontier, progress.outstanding);
            self.metrics.lag(partition, lag);
            let is_unreadable = unreadable.contains_key(&partition);
            self.metrics.unreadable(partition, is_unreadable);
            total += lag;
            if !is_unreadable {
                readable += lag;
            }
        }
        self.group.set_lag(total, readable);
    }

    /// Finds the assigned partitions that cannot be read, and logs the changes. Returns these
    /// partitions with their errors.
    fn check_fetch_errors<'a>(
        &self,
        assigned: impl Iterator<Item = &'a Partition>,
    ) -> BTreeMap<i32, String> {
        let fetching = assigned.map(|partition| Fetching {
            partition: partition.partition,
            next: partition.next_offset,
            end: partition.ls_offset,
            idle: partition.fetchq_cnt == 0,
        });
        let mut errors = self.fetch_errors.lock();
        for change in errors.check(fetching) {
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
        let unreadable = errors.failing();
        self.group.set_unreadable(unreadable.clone());
        unreadable
    }

    fn check_gaps(&self, statistics: &Partition) {
        let partition = statistics.partition;
        // Negative before the first successful fetch and after a failed one.
        let Some(log_start) = Some(statistics.lo_offset).filter(|offset| *offset >= 0) else {
            return;
        };
        let idle = statistics.fetchq_cnt == 0;
        for gap in self.gaps().check(partition, log_start, idle) {
            let records = gap.end - gap.start;
            tracing::error!(
                partition,
                from = gap.start,
                to = gap.end,
                records,
                runbook = "OffsetGap",
                "Kafka deleted records before the group read them"
            );
            self.metrics.offset_gap(records.unsigned_abs());
        }
    }
}

/// Number of records between the frontier and the end of the partition.
fn lag(statistics: &Partition, frontier: Option<i64>, outstanding: usize) -> i64 {
    // Up to the last stable offset: the consumer does not return records of an open transaction.
    let (low, high) = (statistics.lo_offset, statistics.ls_offset);
    if high < 0 {
        return 0;
    }
    // Control records take offsets before the end, but the consumer never returns them. If every
    // record was fetched and finished, there is no lag, even where the frontier is below the end.
    if outstanding == 0 && statistics.fetchq_cnt == 0 && statistics.next_offset >= high {
        return 0;
    }
    let done = frontier.unwrap_or(statistics.committed_offset).max(low);
    (high - done).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition whose log has the offsets 10 to 99.
    fn partition(next: i64, committed: i64) -> Partition {
        Partition {
            lo_offset: 10,
            ls_offset: 100,
            next_offset: next,
            committed_offset: committed,
            ..Partition::default()
        }
    }

    #[test]
    fn lag_is_the_distance_from_the_frontier_to_the_end() {
        for (lag_expected, frontier, outstanding, statistics) in [
            (60, Some(40), 5, partition(45, 30)),
            // Nothing finished since the assignment: from the committed offset.
            (70, None, 5, partition(35, 30)),
            // Nothing committed, or committed below the start of the log.
            (90, None, 5, partition(15, -1001)),
            (90, None, 0, partition(15, 3)),
            // Every record was fetched and finished; the last offsets are control records.
            (0, Some(98), 0, partition(100, 98)),
            (2, Some(98), 1, partition(100, 98)),
            // The frontier is newer than the statistics.
            (0, Some(120), 1, partition(100, 98)),
        ] {
            assert_eq!(
                lag(&statistics, frontier, outstanding),
                lag_expected,
                "{statistics:?}"
            );
        }
        let mut unknown = partition(0, 0);
        unknown.ls_offset = -1001;
        assert_eq!(lag(&unknown, Some(5), 1), 0, "before the first fetch");
    }
}
