//! What the poll thread and the callbacks of librdkafka share. `statistics`, `rebalance` and
//! `restart` add the callbacks and what they do. All of them run on the poll thread.

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use shared::kafka::{Access, Bootstrap};

use super::{
    assignment::Assignment, error_log, fetch_errors::FetchErrors, gap::Gaps,
    group_state::GroupState, went_back::Logs,
};
use crate::metrics::Metrics;

/// Context of the consumer.
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
    pub(super) access: Access,
}

impl Context {
    pub(super) fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock()
    }

    pub(super) fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock()
    }

    /// Returns the partitions of our topic in `list`.
    pub(super) fn partitions(&self, list: &TopicPartitionList) -> Vec<i32> {
        list.elements_for_topic(&self.topic)
            .iter()
            .map(|element| element.partition())
            .collect()
    }

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
        self.metrics.fetch_error(&error_log::name(code));
        if !error_log::is_outage(code) {
            self.fetch_errors.lock().failed(error_log::name(code));
        }
    }
}

/// Commits the stored offsets. The timer would take up to a second, and by then another member owns
/// the partitions. Returns success if there is nothing to commit.
///
/// # Errors
/// When the broker rejects the commit, for example during a rebalance.
pub(super) fn commit<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Result<(), KafkaError> {
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
        result => result,
    }
}

/// Logs that the last commit before a partition is lost has failed.
pub(super) fn report_uncommitted(error: &KafkaError) {
    tracing::warn!(%error, "offset commit failed; the records will be read again");
}
