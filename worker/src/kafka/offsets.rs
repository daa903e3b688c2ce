//! Reads and sets the committed offsets of the group, for operators. Joins no group.

use std::{
    collections::HashMap,
    ops::{ControlFlow, Range},
};

use anyhow::Context;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use shared::config::Kafka;

use super::{
    client::{self, Reporting},
    ranges::{self, ANSWER},
    record::Record,
    topic_identity::{IdRequests, TopicId},
};

/// Access to the offsets of the workers' group.
pub struct Offsets {
    consumer: BaseConsumer<Reporting>,
    topic: String,
    group: String,
}

/// The range of a partition, and the committed offset of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The partition number.
    pub partition: i32,
    /// The first offset that can still be read.
    pub log_start: i64,
    /// The offset after the last record.
    pub end: i64,
    /// The next offset that the group reads. None if the group has committed none, or one of an
    /// earlier topic of this name.
    pub committed: Option<i64>,
}

impl Offsets {
    /// Creates a client. It connects in the background.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(config: &Kafka) -> anyhow::Result<Self> {
        Ok(Self {
            consumer: client::administrator(config)
                .create_with_context(Reporting)
                .context("cannot create a Kafka client")?,
            topic: config.topic.clone(),
            group: config.group_id.clone(),
        })
    }

    /// Returns the number of group members. A killed member counts until its session times out.
    ///
    /// # Errors
    /// When a broker does not answer within ten seconds.
    pub fn members(&self) -> anyhow::Result<usize> {
        let list = self
            .consumer
            .fetch_group_list(Some(&self.group), ANSWER)
            .context("cannot fetch the members of the group")?;
        Ok(list
            .groups()
            .iter()
            .map(|group| group.members().len())
            .sum())
    }

    /// Returns the partitions of the topic, in ascending order.
    ///
    /// # Errors
    /// When a broker does not answer within ten seconds, or the topic does not exist.
    pub fn partitions(&self) -> anyhow::Result<Vec<PartitionOffsets>> {
        let ranges = ranges::of(&self.consumer, &self.topic)?;
        let mut list = TopicPartitionList::with_capacity(ranges.len());
        for (partition, _) in &ranges {
            list.add_partition(&self.topic, *partition);
        }
        let committed = self
            .consumer
            .committed_offsets(list, ANSWER)
            .context("cannot fetch the committed offsets of the group")?;
        let id = self.topic_id()?;
        let belongs = |partition: &i32, _: &mut i64| {
            let element = committed.find_partition(&self.topic, *partition);
            let was = element.and_then(|element| TopicId::from_metadata(element.metadata()));
            was.is_none() || id.is_none() || was == id
        };
        let mut offsets = ranges::by_partition(&committed)?;
        offsets.retain(belongs);
        let partitions = ranges
            .into_iter()
            .map(|(partition, range)| PartitionOffsets {
                partition,
                log_start: range.start,
                end: range.end,
                committed: offsets.get(&partition).copied(),
            });
        Ok(partitions.collect())
    }

    /// Returns the id of the topic. None if no broker answers, or the broker has no topic ids.
    ///
    /// # Errors
    /// When the topic name contains a zero byte.
    fn topic_id(&self) -> anyhow::Result<Option<TopicId>> {
        let client = self.consumer.client();
        let mut request = IdRequests::new(client, &self.topic).context("KAFKA_TOPIC")?;
        request.send(client);
        Ok(request.receive(ANSWER))
    }

    /// Returns the offset of the first record at or after `time_ms` (ms since 1970), for each of
    /// `partitions` that has one.
    ///
    /// # Errors
    /// When a broker does not answer within ten seconds.
    pub fn at_time(
        &self,
        partitions: impl IntoIterator<Item = i32>,
        time_ms: i64,
    ) -> anyhow::Result<HashMap<i32, i64>> {
        ranges::at_time(&self.consumer, &self.topic, partitions, time_ms)
    }

    /// Commits `offsets`: the group continues from these offsets.
    ///
    /// # Errors
    /// When a broker does not answer, or rejects the commit because the group has members.
    pub fn commit(&self, offsets: impl IntoIterator<Item = (i32, i64)>) -> anyhow::Result<()> {
        let list = ranges::list(&self.topic, offsets)?;
        let committed = self.consumer.commit(&list, CommitMode::Sync);
        if let Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId)) = committed {
            anyhow::bail!("the group has members again; stop every worker, then retry");
        }
        committed.context("cannot commit the offsets")
    }

    /// Calls `each` with every record in `ranges`, in offset order within each partition. The
    /// group's committed offsets do not change.
    ///
    /// # Errors
    /// When a broker stops answering for ten seconds.
    pub fn read(
        &self,
        ranges: &HashMap<i32, Range<i64>>,
        mut each: impl FnMut(Record),
    ) -> anyhow::Result<()> {
        self.read_until(ranges, |record| {
            each(record);
            ControlFlow::Continue(())
        })
    }

    /// Like [`Offsets::read`], but stops when `each` returns `Break`.
    ///
    /// # Errors
    /// When a broker stops answering for ten seconds.
    pub fn read_until(
        &self,
        ranges: &HashMap<i32, Range<i64>>,
        mut each: impl FnMut(Record) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        ranges::read(&self.consumer, &self.topic, ranges, |record| {
            Ok(each(record))
        })
        .map(drop)
    }
}
