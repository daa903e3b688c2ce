//! How far a group is.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{OUTAGE, try_watermarks};
use crate::wait::until_within;

/// What a group has committed.
pub struct CommittedOffsets {
    pub(super) consumer: BaseConsumer,
    pub(super) partitions: TopicPartitionList,
}

impl CommittedOffsets {
    /// The next record that the group reads from each partition, where it has committed one.
    #[track_caller]
    pub fn read(&self) -> BTreeMap<i32, i64> {
        until_within(OUTAGE, "the committed offsets", || self.try_read())
    }

    fn try_read(&self) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let committed = self
            .consumer
            .committed_offsets(self.partitions.clone(), Duration::from_secs(5))?;
        let offsets = committed.elements().into_iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else {
                return None;
            };
            Some((element.partition(), offset))
        });
        Ok(offsets.collect())
    }
}

/// How far a group is.
pub struct GroupProgress {
    pub(super) offsets: CommittedOffsets,
    pub(super) topic: String,
}

impl GroupProgress {
    /// How many records the group has finished, as it committed them, and how many there are.
    #[track_caller]
    pub fn read(&self) -> (i64, i64) {
        until_within(OUTAGE, "the progress of the group", || self.try_read())
    }

    /// As [`GroupProgress::read`], at the first attempt.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn try_read(&self) -> Result<(i64, i64), KafkaError> {
        let watermarks = try_watermarks(&self.offsets.consumer, &self.topic)?;
        let committed = self.offsets.try_read()?.into_iter();
        let finished = committed.map(|(partition, offset)| offset - watermarks[&partition].0);
        let all = watermarks.values().map(|(low, high)| high - low);
        Ok((finished.sum(), all.sum()))
    }
}
