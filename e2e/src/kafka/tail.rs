//! Incremental reads of a topic.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::consumer::BaseConsumer;

use super::{inquirer::Inquirer, record::Stored};
use crate::wait::DEADLINE;

/// A topic that is read incrementally: each read continues where the last one ended.
pub struct Tail {
    pub(super) consumer: BaseConsumer,
    pub(super) inquirer: Inquirer,
    pub(super) topic: String,
    /// The next offset to read of each partition.
    pub(super) next: BTreeMap<i32, i64>,
}

impl Tail {
    /// Returns the unread records before these offsets, and possibly some after them.
    #[track_caller]
    pub fn read_to(&mut self, ends: &BTreeMap<i32, i64>) -> Vec<Stored> {
        let deadline = Instant::now() + DEADLINE;
        let mut records = Vec::new();
        while ends
            .iter()
            .any(|(partition, end)| self.next[partition] < *end)
        {
            let (topic, next) = (&self.topic, &self.next);
            assert!(
                Instant::now() < deadline,
                "{topic} cannot be read to {ends:?}, only to {next:?}"
            );
            if let Some(message) = self.consumer.poll(Duration::from_millis(100)) {
                let message = message.unwrap_or_else(|error| panic!("reading {topic}: {error}"));
                let record = Stored::from(&message);
                self.next
                    .insert(record.position.partition, record.position.offset + 1);
                records.push(record);
            }
        }
        records
    }

    /// Returns the unread records up to the current end of the topic.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<Stored> {
        let ends = self.inquirer.watermarks(&self.topic).into_iter();
        let ends = ends
            .map(|(partition, (_, high))| (partition, high))
            .collect();
        self.read_to(&ends)
    }
}
