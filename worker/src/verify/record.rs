//! Records of the topic as the comparison sees them.

use serde::Serialize;
use shared::order::{OrderUid, Version};

/// A valid record.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValidRecord {
    pub(super) uid: OrderUid,
    pub(super) version: Version,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Whether the group has finished it.
    pub(super) finished: bool,
}

/// A finished record that Postgres lacks.
pub(super) struct Lost {
    pub(super) record: ValidRecord,
    /// The older version in Postgres; none without a row.
    pub(super) row: Option<Version>,
}

/// What the comparison found in the topic.
#[derive(Debug, Default, Serialize)]
pub(super) struct TopicCounts {
    /// Records of the sample.
    pub(super) records: u64,
    /// Records that the worker's rules reject, of any order.
    pub(super) rejected: u64,
    /// Records that the group has not finished.
    pub(super) waiting: u64,
    /// Finished records that Postgres lacks.
    pub(super) lost: u64,
}
