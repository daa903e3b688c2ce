//! The topics of one test.

use std::thread;

use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use shared::{
    config::Kafka,
    testing::{PATIENCE, required},
};
use worker::kafka;

pub(crate) const PARTITIONS: i32 = 6;

/// A topic and its dead letter topic; both are deleted when this value is dropped.
pub(crate) struct Topics {
    /// The configuration of a worker that reads the topic. Its group has the name of the topic.
    pub(crate) kafka: Kafka,
}

impl Topics {
    /// Creates the topics as a worker does.
    pub(crate) async fn create(name: &str) -> Self {
        let topics = Self::named(name);
        kafka::create_topics(&topics.kafka).await.unwrap();
        topics
    }

    /// Creates the topics; the timestamps of the records are those of the producers.
    pub(crate) async fn with_producer_times(name: &str) -> Self {
        let topics = Self::named(name);
        let new = |name, kind| {
            NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))
                .set("message.timestamp.type", kind)
        };
        let both = [
            new(&topics.kafka.topic, "CreateTime"),
            new(&topics.kafka.dead_letter_topic, "LogAppendTime"),
        ];
        // Keep the client until it answers; a dropped client never does.
        let admin = topics.admin();
        let created = admin.create_topics(&both, &AdminOptions::new());
        assert!(created.await.unwrap().iter().all(Result::is_ok));
        topics
    }

    fn named(name: &str) -> Self {
        let topic = format!("test-{name}-{:016x}", rand::random::<u64>());
        let kafka = Kafka {
            brokers: required("KAFKA_BROKERS"),
            dead_letter_topic: format!("{topic}-dlq"),
            group_id: topic.clone(),
            topic,
            ..Kafka::default()
        };
        Self { kafka }
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.kafka.brokers)
            .set("group.id", &self.kafka.group_id);
        client
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Sends values to one partition, each after the broker has acknowledged the one before.
    pub(crate) async fn send_in_order(&self, partition: i32, values: &[Vec<u8>]) {
        let producer: FutureProducer = self.client().create().unwrap();
        for value in values {
            let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.kafka.topic)
                .partition(partition)
                .payload(value);
            producer.send(record, PATIENCE).await.unwrap();
        }
    }

    /// Sends values to one partition, all at once.
    pub(crate) async fn send(&self, partition: i32, values: &[Vec<u8>]) {
        let values = values.iter().map(|value| (partition, value));
        self.send_at(None, values).await;
    }

    /// Sends each value to its partition, with this timestamp in ms.
    pub(crate) async fn send_at<'v>(
        &self,
        millis: Option<i64>,
        values: impl Iterator<Item = (i32, &'v Vec<u8>)>,
    ) {
        let producer: FutureProducer = self.client().create().unwrap();
        let sends = values.map(|(partition, value)| {
            let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.kafka.topic)
                .partition(partition)
                .payload(value);
            record.timestamp = millis;
            producer.send(record, PATIENCE)
        });
        try_join_all(sends).await.unwrap();
    }

    /// Returns the number of dead letters. None if the broker does not answer.
    pub(crate) fn dead_letters(&self) -> Option<i64> {
        let consumer: BaseConsumer = self.client().create().ok()?;
        let topic = &self.kafka.dead_letter_topic;
        (0..PARTITIONS)
            .map(|partition| {
                let ends = consumer.fetch_watermarks(topic, partition, PATIENCE);
                Some(ends.ok()?.1)
            })
            .sum()
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let (admin, config) = (self.admin(), self.kafka.clone());
        // A runtime cannot be entered from within another one, so use a thread.
        let deleting = thread::spawn(move || {
            let topics = [config.topic.as_str(), &config.dead_letter_topic];
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(admin.delete_topics(&topics, &AdminOptions::new()))
                .unwrap();
        });
        // A panic while unwinding would hide the first one.
        let _ = deleting.join();
    }
}
