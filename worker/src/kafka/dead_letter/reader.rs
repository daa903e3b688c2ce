//! Reads the dead letter topic up to its current end.

use std::{
    collections::HashMap,
    ops::{ControlFlow, Range},
};

use anyhow::Context;
use rdkafka::consumer::BaseConsumer;
use shared::{config::Kafka, order::Reason};

use super::DeadLetter;
use crate::kafka::{
    client::{self, Reporting},
    ranges,
};

/// Reader of the dead letters that the topic holds when the reader opens.
pub struct Reader {
    consumer: BaseConsumer<Reporting>,
    topic: String,
    partitions: Vec<(i32, Range<i64>)>,
}

impl Reader {
    /// Connects and fetches the current offset range of each partition.
    ///
    /// # Errors
    /// When no broker answers within ten seconds, or the topic does not exist.
    pub fn open(config: &Kafka) -> anyhow::Result<Self> {
        let consumer = client::reader(config)
            .create_with_context(Reporting)
            .context("cannot create a Kafka client")?;
        let topic = config.dead_letter_topic.clone();
        let partitions = ranges::of(&consumer, &topic)?;
        Ok(Self {
            consumer,
            topic,
            partitions,
        })
    }

    /// Calls `each` with every dead letter, partition by partition, oldest first, until `each`
    /// returns `Break`.
    ///
    /// # Errors
    /// When a broker stops answering, or `each` fails.
    pub fn for_each(
        &self,
        mut each: impl FnMut(DeadLetter) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        for (partition, range) in &self.partitions {
            let range = HashMap::from([(*partition, range.clone())]);
            if self.read(&range, &mut each)?.is_break() {
                break;
            }
        }
        Ok(())
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
