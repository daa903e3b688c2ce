//! The group's committed offsets and what they stand for, as an operator looks at them and sets them. Joins no group.

use std::{collections::HashMap, ops::Range, time::Duration};

use anyhow::Context;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use shared::config::Kafka;

use super::{client, record::Record};

/// How long one question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Access to the offsets of the workers' group.
pub struct Offsets {
    consumer: BaseConsumer,
    topic: String,
    group: String,
}

/// Where a partition begins and ends, and how far the group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// Which partition.
    pub partition: i32,
    /// Its first offset that can still be read.
    pub log_start: i64,
    /// The offset behind its last record.
    pub end: i64,
    /// The next offset that the group reads; none where it has committed none.
    pub committed: Option<i64>,
}

impl Offsets {
    /// Connects by itself, later.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Kafka) -> anyhow::Result<Self> {
        Ok(Self {
            consumer: client::administrator(config)
                .create()
                .context("Kafka client")?,
            topic: config.topic.clone(),
            group: config.group_id.clone(),
        })
    }

    /// How many members the group has. One that was killed counts until its session times out.
    ///
    /// # Errors
    /// When a broker does not answer within ten seconds.
    pub fn members(&self) -> anyhow::Result<usize> {
        let list = self
            .consumer
            .fetch_group_list(Some(&self.group), ANSWER)
            .context("asking for the group's members")?;
        Ok(list
            .groups()
            .iter()
            .map(|group| group.members().len())
            .sum())
    }

    /// The partitions of the topic, in their order.
    ///
    /// # Errors
    /// When a broker does not answer within ten seconds, or the topic does not exist.
    pub fn partitions(&self) -> anyhow::Result<Vec<PartitionOffsets>> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), ANSWER)
            .context("KAFKA_BROKERS: no broker answers")?;
        let mut partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .filter(|found| found.name() == self.topic && found.error().is_none())
            .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
            .collect();
        anyhow::ensure!(
            !partitions.is_empty(),
            "KAFKA_TOPIC: the topic {} does not exist",
            self.topic
        );
        partitions.sort_unstable();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        partitions.iter().for_each(|partition| {
            list.add_partition(&self.topic, *partition);
        });
        let committed = self
            .consumer
            .committed_offsets(list, ANSWER)
            .context("asking for the group's offsets")?;
        let committed = by_partition(&committed)?;
        partitions
            .into_iter()
            .map(|partition| {
                let (log_start, end) = self
                    .consumer
                    .fetch_watermarks(&self.topic, partition, ANSWER)
                    .context("asking for the topic's offsets")?;
                Ok(PartitionOffsets {
                    partition,
                    log_start,
                    end,
                    committed: committed.get(&partition).copied(),
                })
            })
            .collect()
    }

    /// The offset of the first record at or after `time_ms` (since 1970) in each of `partitions` that has one.
    ///
    /// # Errors
    /// When a broker does not answer within ten seconds.
    pub fn at_time(
        &self,
        partitions: impl IntoIterator<Item = i32>,
        time_ms: i64,
    ) -> anyhow::Result<HashMap<i32, i64>> {
        let asked = self.list(partitions.into_iter().map(|partition| (partition, time_ms)))?;
        let found = self
            .consumer
            .offsets_for_times(asked, ANSWER)
            .context("asking for the offsets at that time")?;
        by_partition(&found)
    }

    /// Makes `offsets` the next to be read in their partitions.
    ///
    /// # Errors
    /// When a broker does not answer, or refuses because the group has members.
    pub fn commit(&self, offsets: impl IntoIterator<Item = (i32, i64)>) -> anyhow::Result<()> {
        let list = self.list(offsets)?;
        let committed = self.consumer.commit(&list, CommitMode::Sync);
        if let Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId)) = committed {
            anyhow::bail!("the group has members again: stop every worker, then try again");
        }
        committed.context("committing the offsets")
    }

    fn list(
        &self,
        offsets: impl IntoIterator<Item = (i32, i64)>,
    ) -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        Ok(list)
    }

    /// Calls `each` with the records at these offsets, as far as there are any, lowest first in each partition; none of
    /// them counts as read by the group.
    ///
    /// # Errors
    /// When a broker stops answering for ten seconds.
    pub fn read(
        &self,
        ranges: &HashMap<i32, Range<i64>>,
        mut each: impl FnMut(Record),
    ) -> anyhow::Result<()> {
        let mut open: HashMap<i32, i64> = ranges
            .iter()
            .filter(|(_, range)| !range.is_empty())
            .map(|(partition, range)| (*partition, range.end))
            .collect();
        let starts = open
            .keys()
            .map(|partition| (*partition, ranges[partition].start));
        self.consumer.assign(&self.list(starts)?)?;
        let topic = self.topic.as_str().into();
        while !open.is_empty() {
            match self.consumer.poll(ANSWER) {
                Some(Ok(message)) => {
                    let record = Record::copy(&message, &topic);
                    let Some(end) = open.get(&record.partition).copied() else {
                        continue;
                    };
                    if record.offset + 1 >= end {
                        open.remove(&record.partition);
                    }
                    if record.offset < end {
                        each(record);
                    }
                }
                // The last offsets may hold nothing that is handed out.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) => return Err(error).context("reading the topic"),
                None => anyhow::bail!("no answer from the brokers within {ANSWER:?}"),
            }
        }
        Ok(())
    }
}

/// The partitions with an offset, and the offset.
fn by_partition(list: &TopicPartitionList) -> anyhow::Result<HashMap<i32, i64>> {
    let mut offsets = HashMap::new();
    for element in list.elements() {
        element
            .error()
            .with_context(|| format!("partition {}", element.partition()))?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}
