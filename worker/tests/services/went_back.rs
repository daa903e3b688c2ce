//! A partition whose log is not the one that the group has read. Every record of the new log is
//! stored, and the committed offset follows.

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use shared::{
    order::{Order, sample::Generator},
    testing::{PATIENCE, TestDatabase, TestRedis, eventually},
};
use worker::kafka::Offsets;

use crate::{
    pipeline::{Options, Running, await_stored},
    topics::{PARTITIONS, Topics},
};

const PARTITION: i32 = 1;

/// A topic that is recreated, and the services of its worker.
struct World {
    topics: Topics,
    database: TestDatabase,
    redis: TestRedis,
    orders: Generator,
    sent: usize,
}

impl World {
    async fn new(name: &str, seed: u64) -> Self {
        Self {
            topics: Topics::create(name).await,
            database: TestDatabase::migrated().await,
            redis: TestRedis::start(),
            orders: Generator::new(seed, 1..=1),
            sent: 0,
        }
    }

    fn start(&self) -> Running {
        let kafka = &self.topics.kafka;
        Running::start(kafka, &self.database, &self.redis, Options::default())
    }

    /// Sends new orders, all at once.
    async fn send(&mut self, count: usize) {
        let orders: Vec<Order> = self.orders.by_ref().take(count).collect();
        let values: Vec<Vec<u8>> = orders.iter().map(Order::to_json).collect();
        self.topics.send(PARTITION, &values).await;
        self.sent += count;
    }

    async fn recreate(&self) {
        let (admin, options) = (self.topics.admin(), AdminOptions::new());
        let topic = self.topics.kafka.topic.as_str();
        let deleted = admin.delete_topics(&[topic], &options).await.unwrap();
        assert!(deleted[0].is_ok(), "{deleted:?}");
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime");
        eventually("a topic of the same name", async || {
            let created = admin.create_topics([&new], &options).await.ok()?;
            created.into_iter().all(|topic| topic.is_ok()).then_some(())
        })
        .await;
    }

    /// Commits an offset, as an operator or a tool that copies a group's offsets does. With
    /// `topic_id`, commits the same metadata as a worker.
    fn commit(&self, offset: i64, topic_id: Option<&str>) {
        let consumer: BaseConsumer = self.topics.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.topics.kafka.topic, PARTITION);
        element.set_offset(Offset::Offset(offset)).unwrap();
        if let Some(id) = topic_id {
            element.set_metadata(format!("topic-id={id}"));
        }
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    /// Returns the next offset that the group reads, and the metadata of its commit.
    fn committed(&self) -> (Option<i64>, String) {
        let consumer: BaseConsumer = self.topics.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topics.kafka.topic, PARTITION);
        let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
        let element = committed
            .find_partition(&self.topics.kafka.topic, PARTITION)
            .unwrap();
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        (offset, element.metadata().to_owned())
    }

    /// Waits until every record that was ever sent is stored and the group has committed `offset`.
    /// Returns the metadata of that commit.
    async fn settle(&self, offset: i64) -> String {
        await_stored(&self.database, self.sent).await;
        eventually("the committed offset", async || {
            let (committed, metadata) = self.committed();
            (committed == Some(offset)).then_some(metadata)
        })
        .await
    }
}

/// Recreates the topic while a worker reads it.
async fn recreated_while_running(name: &str, seed: u64, count: usize) {
    let mut world = World::new(name, seed).await;
    let worker = world.start();
    world.send(30).await;
    let before = world.settle(30).await;
    world.recreate().await;
    world.send(count).await;
    let after = world.settle(count as i64).await;
    assert_ne!(before, after, "the commit names the topic");
    world.send(5).await;
    world.settle(count as i64 + 5).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_under_a_worker_with_fewer_records_is_read_from_its_beginning() {
    recreated_while_running("fewer", 21, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_under_a_worker_with_more_records_is_read_from_its_beginning() {
    recreated_while_running("more", 22, 47).await;
}

/// The new log is still empty when the worker detects it.
#[tokio::test(flavor = "multi_thread")]
async fn the_committed_offset_follows_a_topic_that_is_recreated_empty() {
    let mut world = World::new("empty", 23).await;
    let worker = world.start();
    world.send(30).await;
    world.settle(30).await;
    world.recreate().await;
    world.settle(0).await;
    world.send(3).await;
    world.settle(3).await;
    worker.stop().await;
}

/// Recreates the topic while no worker runs; a tool then restores the offsets of the old topic.
async fn recreated_while_stopped(name: &str, seed: u64, count: usize) {
    let mut world = World::new(name, seed).await;
    world.send(30).await;
    let worker = world.start();
    let metadata = world.settle(30).await;
    worker.stop().await;
    world.recreate().await;
    world.send(count).await;
    let id = metadata.strip_prefix("topic-id=").unwrap();
    // The broker drops the offsets of a deleted topic some time after the deletion.
    eventually("no committed offset", async || {
        world.committed().0.is_none().then_some(())
    })
    .await;
    world.commit(30, Some(id));
    // No record of the new log is finished. So Postgres is not expected to hold it, and the command
    // `worker rewind` does not start there.
    let offsets = Offsets::new(&world.topics.kafka)
        .unwrap()
        .partitions()
        .unwrap();
    assert_eq!(offsets[PARTITION as usize].committed, None);
    let worker = world.start();
    let after = world.settle(count as i64).await;
    assert_ne!(metadata, after);
    worker.stop().await;
    // The next worker continues from there.
    let worker = world.start();
    world.send(2).await;
    world.settle(count as i64 + 2).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_between_two_workers_with_fewer_records_is_read_from_its_beginning() {
    recreated_while_stopped("fewer-later", 24, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_between_two_workers_with_more_records_is_read_from_its_beginning() {
    recreated_while_stopped("more-later", 25, 61).await;
}

/// The log ends below the committed offset: it was truncated, or an offset was committed that Kafka
/// never assigned.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_committed_beyond_the_end_hides_no_record() {
    let mut world = World::new("beyond", 26).await;
    world.send(8).await;
    world.commit(1_000, None);
    let worker = world.start();
    world.settle(8).await;
    world.send(4).await;
    world.settle(12).await;
    worker.stop().await;
}
