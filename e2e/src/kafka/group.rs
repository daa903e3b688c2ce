//! Progress of a consumer group.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::inquirer::{Inquirer, watermarks};

/// Reads the committed offsets of a group.
pub struct CommittedOffsets {
    pub(super) inquirer: Inquirer,
    pub(super) partitions: TopicPartitionList,
}

impl CommittedOffsets {
    /// Returns the committed offset of each partition that has one.
    #[track_caller]
    pub fn read(&mut self) -> BTreeMap<i32, i64> {
        let Self {
            inquirer,
            partitions,
        } = self;
        inquirer.await_answer("the committed offsets", committed(partitions))
    }
}

fn committed(
    partitions: &TopicPartitionList,
) -> impl Fn(&BaseConsumer, Duration) -> Result<BTreeMap<i32, i64>, KafkaError> {
    move |client, timeout| {
        let committed = client.committed_offsets(partitions.clone(), timeout)?;
        let offsets = committed.elements().into_iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else {
                return None;
            };
            Some((element.partition(), offset))
        });
        Ok(offsets.collect())
    }
}

/// Reads the progress of a group.
pub struct GroupProgress {
    pub(super) offsets: CommittedOffsets,
    pub(super) topic: String,
}

impl GroupProgress {
    /// Returns the number of finished records according to the committed offsets, and the number of
    /// all records.
    #[track_caller]
    pub fn read(&mut self) -> (i64, i64) {
        let Self { offsets, topic } = self;
        offsets.inquirer.await_answer(
            "the progress of the group",
            progress(&offsets.partitions, topic),
        )
    }

    /// Like [`GroupProgress::read`], without retries.
    ///
    /// # Errors
    /// No broker answers.
    pub fn try_read(&mut self) -> Result<(i64, i64), KafkaError> {
        let Self { offsets, topic } = self;
        offsets.inquirer.ask(progress(&offsets.partitions, topic))
    }
}

fn progress(
    partitions: &TopicPartitionList,
    topic: &str,
) -> impl Fn(&BaseConsumer, Duration) -> Result<(i64, i64), KafkaError> {
    move |client, timeout| {
        let watermarks = watermarks(topic)(client, timeout)?;
        let committed = committed(partitions)(client, timeout)?.into_iter();
        let finished = committed.map(|(partition, offset)| offset - watermarks[&partition].0);
        let all = watermarks.values().map(|(low, high)| high - low);
        Ok((finished.sum(), all.sum()))
    }
}
