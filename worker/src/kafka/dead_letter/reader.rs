//! Reads the dead letter topic.

use std::{
    collections::HashMap,
    ops::{ControlFlow, Range},
    time::Duration,
};

use anyhow::Context;
use rdkafka::consumer::BaseConsumer;
use shared::{config::Kafka, order::Reason};

use super::DeadLetter;
use crate::kafka::{
    client::{self, Reporting},
    ranges::{self, Ranges},
};

/// How long [`Reader::follow`] waits for a dead letter before it reports that none came.
const IDLE: Duration = Duration::from_millis(500);

/// Reader of the dead letters that the topic holds when the reader opens.
pub struct Reader {
    consumer: BaseConsumer<Reporting>,
    topic: String,
    partitions: Ranges,
}

impl Reader {
    /// Connects and fetches the current offset range of each partition. None if the topic does not
    /// exist.
    ///
    /// # Errors
    /// When no broker answers within ten seconds, or does not let us read the topic.
    pub fn find(config: &Kafka) -> anyhow::Result<Option<Self>> {
        let consumer = client::reader(config)
            .create_with_context(Reporting)
            .context("cannot create a Kafka client")?;
        let topic = config.dead_letter_topic.clone();
        let partitions = ranges::find(&consumer, &topic)?;
        Ok(partitions.map(|partitions| Self {
            consumer,
            topic,
            partitions,
        }))
    }

    /// Returns the same as [`Reader::find`] for a topic that must exist.
    ///
    /// # Errors
    /// When the topic does not exist, or as [`Reader::find`].
    pub fn open(config: &Kafka) -> anyhow::Result<Self> {
        let topic = &config.dead_letter_topic;
        Self::find(config)?
            .with_context(|| format!("topic {topic} does not exist (KAFKA_DEAD_LETTER_TOPIC)"))
    }

    /// Returns the name of the dead letter topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the partitions in ascending order, each with the offsets that it held when the
    /// reader opened.
    pub fn partitions(&self) -> &[(i32, Range<i64>)] {
        &self.partitions
    }

    /// Returns the offset of the first dead letter at or after `time_ms` (ms since 1970), for each
    /// partition that has one.
    ///
    /// # Errors
    /// When a broker does not answer within ten seconds.
    pub fn at_time(&self, time_ms: i64) -> anyhow::Result<HashMap<i32, i64>> {
        let partitions = self.partitions.iter().map(|(partition, _)| *partition);
        ranges::at_time(&self.consumer, &self.topic, partitions, time_ms)
    }

    /// Calls `each` with every dead letter in `ranges`, partition by partition, oldest first, until
    /// `each` returns `Break`.
    ///
    /// # Errors
    /// When a broker stops answering, or `each` fails.
    pub fn for_each(
        &self,
        ranges: &[(i32, Range<i64>)],
        mut each: impl FnMut(DeadLetter) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<ControlFlow<()>> {
        for (partition, range) in ranges {
            let range = HashMap::from([(*partition, range.clone())]);
            if self.read(&range, &mut each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `each` with every dead letter that is newer than the reader, and regularly with none,
    /// until `each` returns `Break`. An outage of the brokers does not end it.
    ///
    /// # Errors
    /// When the topic cannot be read, or `each` fails.
    pub fn follow(
        &self,
        mut each: impl FnMut(Option<DeadLetter>) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let ends = self.partitions.iter();
        let ends = ends.map(|(partition, range)| (*partition, range.end));
        ranges::follow(&self.consumer, &self.topic, ends, IDLE, |record| {
            each(record.map(|record| DeadLetter { record }))
        })
    }

    /// Whether at least `count` dead letters have this reason. Reads the newest `among` offsets of
    /// each partition and counts over all partitions together.
    ///
    /// # Errors
    /// When a broker stops answering.
    pub fn newest_have_reason(
        &self,
        reason: Reason,
        count: usize,
        among: i64,
    ) -> anyhow::Result<bool> {
        let newest = self.partitions.iter().map(|(partition, range)| {
            let start = (range.end - among).max(range.start);
            (*partition, start..range.end)
        });
        let mut found = 0;
        let stopped = self.read(&newest.collect(), |letter| {
            found += usize::from(letter.reason() == reason.as_str());
            Ok(match found < count {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        Ok(stopped.is_break())
    }

    fn read(
        &self,
        ranges: &HashMap<i32, Range<i64>>,
        mut each: impl FnMut(DeadLetter) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<ControlFlow<()>> {
        ranges::read(&self.consumer, &self.topic, ranges, |record| {
            each(DeadLetter { record })
        })
    }
}
