//! The client of the brokers: admin operations, reads and sends.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigResource, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer},
};
use shared::kafka::Bootstrap;

use super::{
    group::{CommittedOffsets, GroupProgress},
    inquirer::{self, Inquirer, OUTAGE},
    record::{Position, Reports, Stored},
    tail::Tail,
};
use crate::{block_on, record::Record};

/// Size limit of these clients. The topic's own limit decides.
const MAX_BYTES: &str = "16777216";

/// Consumer group of clients that read and commit nothing.
const READER: &str = "e2e-reader";

/// Source of the timestamps of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// The broker's clock, as in a topic that the worker creates.
    LogAppend,
    /// The producers' clocks.
    Create,
}

impl Timestamps {
    fn as_str(self) -> &'static str {
        match self {
            Self::LogAppend => "LogAppendTime",
            Self::Create => "CreateTime",
        }
    }
}

/// A client of the brokers.
pub struct Broker {
    pub(super) client: ClientConfig,
    producer: BaseProducer<Reports>,
}

impl Broker {
    /// A client of the brokers at these addresses.
    pub fn new(brokers: &str) -> Self {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", brokers)
            .set("message.max.bytes", MAX_BYTES)
            .set("fetch.message.max.bytes", MAX_BYTES)
            // The default of 10 s would delay the reconnect to a broker that is back.
            .set("reconnect.backoff.max.ms", "1000")
            .set("acks", "all")
            .set("enable.idempotence", "true");
        let bootstrap = Bootstrap::new(brokers).expect("addresses without a zero byte");
        let producer = client
            .clone()
            .set("statistics.interval.ms", "1000")
            .create_with_context(Reports::new(bootstrap))
            .expect("a producer");
        Self { client, producer }
    }

    pub(super) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client.create().expect("an admin client")
    }

    /// Creates a topic of six partitions with this size limit, as the worker does.
    #[track_caller]
    pub fn create_topic(&self, name: &str, timestamps: Timestamps, max_bytes: u32) {
        let (max_bytes, ahead_ms) = (max_bytes.to_string(), i64::MAX.to_string());
        let topic = NewTopic::new(name, 6, TopicReplication::Fixed(1))
            .set("message.timestamp.type", timestamps.as_str())
            // Producers' clocks may be wrong by years. By default brokers reject timestamps more
            // than an hour ahead.
            .set("message.timestamp.after.max.ms", &ahead_ms)
            .set("max.message.bytes", &max_bytes);
        let created = block_on(self.admin().create_topics([&topic], &AdminOptions::new()));
        assert_eq!(created, Ok(vec![Ok(name.to_owned())]));
    }

    /// Deletes those of the topics that exist.
    pub fn delete_topics(&self, names: &[&str]) {
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        if let Err(error) = block_on(self.admin().delete_topics(names, &options)) {
            eprintln!("deleting {names:?}: {error}");
        }
    }

    /// Returns the settings of a topic.
    #[track_caller]
    pub fn settings(&self, topic: &str) -> BTreeMap<String, String> {
        let described: Vec<Result<ConfigResource, RDKafkaErrorCode>> = block_on(
            self.admin()
                .describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()),
        )
        .unwrap_or_else(|error| panic!("settings of {topic}: {error}"));
        described
            .into_iter()
            .flat_map(|resource| resource.expect("the topic exists").entries)
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect()
    }

    /// Sets the maximum size of a record of a topic. Resets every other setting of the topic to its
    /// default.
    #[track_caller]
    pub fn limit(&self, topic: &str, max_bytes: u32) {
        let max_bytes = max_bytes.to_string();
        let limit =
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &max_bytes);
        block_on(self.admin().alter_configs([&limit], &AdminOptions::new()))
            .unwrap_or_else(|error| panic!("limit of {topic}: {error}"))
            .into_iter()
            .for_each(|altered| drop(altered.expect("the topic exists")));
    }

    /// Deletes the records below these offsets, as retention does.
    #[track_caller]
    pub fn delete_records(&self, topic: &str, below: &[(i32, i64)]) {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in below {
            offsets
                .add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .unwrap();
        }
        block_on(self.admin().delete_records(&offsets, &AdminOptions::new()))
            .unwrap_or_else(|error| panic!("deleting records of {topic}: {error}"))
            .elements()
            .iter()
            .for_each(|element| element.error().unwrap());
    }

    fn consumer(&self, group: &str) -> ClientConfig {
        let mut client = self.client.clone();
        client
            .set("group.id", group)
            // Other requests to the broker wait for the current fetch. The default is half a
            // second.
            .set("fetch.wait.max.ms", "20")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        client
    }

    fn inquirer(&self, group: &str) -> Inquirer {
        Inquirer::new(self.consumer(group))
    }

    /// Returns the first offset and the end offset of each partition of a topic.
    #[track_caller]
    pub fn watermarks(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        self.inquirer(READER).watermarks(topic)
    }

    /// Like [`Broker::watermarks`], without retries.
    ///
    /// # Errors
    /// The topic does not exist, or a broker is not reachable at its advertised address.
    pub fn try_watermarks(&self, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, KafkaError> {
        self.inquirer(READER).ask(inquirer::watermarks(topic))
    }

    /// Returns the number of records of `topic` that the group has finished according to its
    /// committed offsets, and the number of all records.
    #[track_caller]
    pub fn progress(&self, group: &str, topic: &str) -> (i64, i64) {
        self.group_progress(group, topic).read()
    }

    /// Like [`Broker::progress`], for repeated reads.
    #[track_caller]
    pub fn group_progress(&self, group: &str, topic: &str) -> GroupProgress {
        let partitions = self.watermarks(topic).into_keys();
        GroupProgress {
            offsets: self.committed_offsets(group, topic, partitions),
            topic: topic.to_owned(),
        }
    }

    /// Returns the committed offset of each of these partitions that has one.
    #[track_caller]
    pub fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> BTreeMap<i32, i64> {
        self.committed_offsets(group, topic, partitions).read()
    }

    /// Like [`Broker::committed`], for repeated reads.
    pub fn committed_offsets(
        &self,
        group: &str,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> CommittedOffsets {
        let mut partitions_of_topic = TopicPartitionList::new();
        for partition in partitions {
            partitions_of_topic.add_partition(topic, partition);
        }
        CommittedOffsets {
            inquirer: self.inquirer(group),
            partitions: partitions_of_topic,
        }
    }

    /// Returns all records of a topic, partition by partition.
    #[track_caller]
    pub fn read(&self, topic: &str) -> Vec<Stored> {
        self.read_since(topic, &BTreeMap::new())
    }

    /// Like [`Broker::read`], without the records before these offsets.
    #[track_caller]
    pub fn read_since(&self, topic: &str, since: &BTreeMap<i32, i64>) -> Vec<Stored> {
        let mut tail = self.tail(topic, since);
        let mut records = tail.read_to_end();
        records.sort_by_key(|record| (record.position.partition, record.position.offset));
        records
    }

    /// Opens a topic for incremental reads, from these offsets on.
    #[track_caller]
    pub fn tail(&self, topic: &str, since: &BTreeMap<i32, i64>) -> Tail {
        let mut inquirer = self.inquirer(READER);
        let mut assignment = TopicPartitionList::new();
        let mut next = BTreeMap::new();
        for (partition, (low, _)) in inquirer.watermarks(topic) {
            let first = since.get(&partition).map_or(low, |since| low.max(*since));
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(first))
                .unwrap();
            next.insert(partition, first);
        }
        let consumer: BaseConsumer = self.consumer(READER).create().expect("a consumer");
        consumer.assign(&assignment).unwrap();
        Tail {
            consumer,
            inquirer,
            topic: topic.to_owned(),
            next,
        }
    }

    /// Sends records and waits for all acknowledgements. Returns the position of each record, in
    /// the same order.
    #[track_caller]
    pub fn send<'a>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Vec<Position> {
        let mut sent = 0;
        for record in records {
            let mut message = record.message(topic, sent);
            while let Err((error, back)) = self.producer.send(message) {
                assert_eq!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::QueueFull),
                    "{error}"
                );
                self.serve();
                message = back;
            }
            sent += 1;
        }
        let deadline = Instant::now() + OUTAGE;
        while self.producer.in_flight_count() > 0 {
            assert!(
                Instant::now() < deadline,
                "sending {sent} records to {topic} took {OUTAGE:?}"
            );
            self.serve();
        }
        let reports = self.producer.context().take();
        assert_eq!(reports.len(), sent, "delivery reports");
        reports
            .into_values()
            .map(|report| report.unwrap_or_else(|error| panic!("sending to {topic}: {error}")))
            .collect()
    }

    /// Processes delivery reports.
    fn serve(&self) {
        let bootstrap = &self.producer.context().bootstrap;
        bootstrap.restore(self.producer.client());
        self.producer.poll(Duration::from_millis(10));
    }
}
