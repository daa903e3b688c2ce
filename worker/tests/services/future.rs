//! Timestamps from the future, through the whole pipeline. One producer's clock is wrong, or every
//! clock but the worker's is ahead.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use shared::{
    cache::Cache,
    config::Kafka,
    order::{Order, Reason, sample::Generator},
    storage::Role,
    testing::{PATIENCE, TestDatabase, TestRedis, eventually, required},
};
use tokio::task::JoinHandle;
use worker::{
    config::Worker,
    kafka::{
        self, GroupState, Poller,
        dead_letter::{DeadLetters, Reader},
    },
    metrics::Metrics,
    pipeline::{
        Pipeline,
        breaker::RejectionBreaker,
        future::{Clock, FutureGuard},
        waits::{Wait, Waits},
        write_through::WriteThrough,
    },
};

/// Less than the hour from which the broker rejects a timestamp.
const AHEAD: Duration = Duration::from_secs(40 * 60);
const PARTITIONS: i32 = 6;

/// A topic whose timestamps are set by its producers, and the services of its worker.
struct World {
    kafka: Kafka,
    database: TestDatabase,
    redis: TestRedis,
    orders: Generator,
}

struct Running {
    poller: Poller,
    pipeline: JoinHandle<()>,
    waits: Arc<Waits>,
}

impl World {
    async fn new(name: &str, seed: u64) -> Self {
        let topic = format!("test-{name}-{:016x}", rand::random::<u64>());
        let kafka = Kafka {
            brokers: required("KAFKA_BROKERS"),
            dead_letter_topic: format!("{topic}-dlq"),
            group_id: topic.clone(),
            topic,
            ..Kafka::default()
        };
        let world = Self {
            kafka,
            database: TestDatabase::migrated().await,
            redis: TestRedis::start(),
            orders: Generator::new(seed, 1..=1),
        };
        let new = |name, kind| {
            NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))
                .set("message.timestamp.type", kind)
        };
        let topics = [
            new(&world.kafka.topic, "CreateTime"),
            new(&world.kafka.dead_letter_topic, "LogAppendTime"),
        ];
        let admin = world.admin();
        let created = admin.create_topics(&topics, &AdminOptions::new());
        assert!(created.await.unwrap().iter().all(Result::is_ok));
        world
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.kafka.brokers);
        client
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn start(&self, clock: Arc<Clock>) -> Running {
        let (metrics, waits) = (Metrics::new(), Arc::new(Waits::new()));
        let drain = kafka::DrainLimits {
            revoked: Duration::ZERO,
            shutdown: Duration::ZERO,
        };
        let group = Arc::new(GroupState::new());
        let started = kafka::start(&self.kafka, 1 << 20, drain, group, metrics.clone()).unwrap();
        let postgres = self.database.connect(Role::Worker);
        let cache = Cache::pooled(&self.redis.config()).unwrap();
        let suspicious = Reader::open(&self.kafka)
            .and_then(|reader| reader.newest_have_reason(Reason::FutureTimestamp, 10, 200))
            .unwrap();
        let pipeline = Pipeline {
            postgres: postgres.clone(),
            write_through: WriteThrough::new(cache, postgres, Arc::clone(&waits)),
            dead_letters: DeadLetters::new(&self.kafka).unwrap(),
            assignment: started.assignment,
            breaker: Arc::new(RejectionBreaker::new(false)),
            future: FutureGuard::new(clock, suspicious),
            waits: Arc::clone(&waits),
            metrics,
        };
        let intake = started.intake;
        Running {
            poller: started.poller,
            pipeline: tokio::spawn(async move { pipeline.run(&Worker::default(), intake).await }),
            waits,
        }
    }

    /// Sends new orders to all partitions, with timestamps that are `ahead` of now.
    async fn send(&mut self, count: usize, ahead: Duration) {
        let producer: FutureProducer = self.client().create().unwrap();
        let time = SystemTime::now() + ahead;
        let millis = time.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let orders: Vec<Order> = self.orders.by_ref().take(count).collect();
        let values: Vec<Vec<u8>> = orders.iter().map(Order::to_json).collect();
        let sends = (0..PARTITIONS)
            .cycle()
            .zip(&values)
            .map(|(partition, value)| {
                let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.kafka.topic)
                    .partition(partition)
                    .timestamp(millis)
                    .payload(value);
                producer.send(record, PATIENCE)
            });
        try_join_all(sends).await.unwrap();
    }

    async fn stored(&self) -> i64 {
        self.database.value("SELECT count(*) FROM orders").await
    }

    fn dead_letters(&self) -> i64 {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let ends = (0..PARTITIONS).map(|partition| {
            let topic = &self.kafka.dead_letter_topic;
            consumer
                .fetch_watermarks(topic, partition, PATIENCE)
                .unwrap()
                .1
        });
        ends.sum()
    }

    async fn remove(self) {
        let topics = [
            self.kafka.topic.as_str(),
            self.kafka.dead_letter_topic.as_str(),
        ];
        // Keep the client until it answers; a dropped client never does.
        let admin = self.admin();
        let deleted = admin.delete_topics(&topics, &AdminOptions::new());
        deleted.await.unwrap();
    }
}

impl Running {
    async fn await_stop(&self) {
        eventually("a worker that waits for its clock", async || {
            self.waits.waiting_for(Wait::Clock).then_some(())
        })
        .await;
    }

    async fn end(self) {
        self.poller.stop().await;
        self.pipeline.await.unwrap();
    }
}

/// The worker's clock is 40 minutes behind the clocks of the producers, the broker and Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_behind_stores_everything() {
    let mut world = World::new("behind", 31).await;
    world.send(300, AHEAD).await;
    let clock = Arc::new(Clock::default());
    clock.observe(SystemTime::now() + AHEAD);
    let worker = world.start(clock);
    eventually("every order", async || {
        (world.stored().await == 300).then_some(())
    })
    .await;
    assert_eq!(world.dead_letters(), 0);
    worker.end().await;
    world.remove().await;
}

/// Postgres cannot correct the worker's clock here, because its own clock is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_full_of_future_records_is_not_dead_lettered_even_by_restarts() {
    let mut world = World::new("ahead", 32).await;
    world.send(300, AHEAD).await;
    let clock = Arc::new(Clock::default());
    let worker = world.start(Arc::clone(&clock));
    worker.await_stop().await;
    eventually("the first dead letters", async || {
        (world.dead_letters() == 20).then_some(())
    })
    .await;
    worker.end().await;
    for _ in 0..2 {
        let worker = world.start(Arc::clone(&clock));
        worker.await_stop().await;
        worker.end().await;
        assert_eq!(world.dead_letters(), 20);
    }
    let worker = world.start(Arc::clone(&clock));
    worker.await_stop().await;
    // An operator corrects the clock.
    clock.observe(SystemTime::now() + AHEAD);
    eventually("the other orders", async || {
        (world.stored().await >= 280).then_some(())
    })
    .await;
    assert!(!worker.waits.waiting_for(Wait::Clock));
    assert_eq!(world.dead_letters(), 20);
    worker.end().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_producer_whose_clock_is_ahead_is_dead_lettered_among_others() {
    let mut world = World::new("skewed", 33).await;
    for _ in 0..5 {
        world.send(12, AHEAD).await;
        world.send(30, Duration::ZERO).await;
    }
    let worker = world.start(Arc::default());
    eventually("the orders of the others", async || {
        (world.stored().await == 150).then_some(())
    })
    .await;
    eventually("the dead letters", async || {
        (world.dead_letters() == 60).then_some(())
    })
    .await;
    assert!(!worker.waits.waiting_for(Wait::Clock));
    worker.end().await;
    world.remove().await;
}

/// The worker stops if it reads only the records of one wrong producer. A record of another
/// producer shows that the worker's clock is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_another_producer_resumes_the_intake() {
    let mut world = World::new("alone", 34).await;
    world.send(100, AHEAD).await;
    let worker = world.start(Arc::default());
    worker.await_stop().await;
    world.send(1, Duration::ZERO).await;
    eventually("all dead letters", async || {
        (world.dead_letters() == 100).then_some(())
    })
    .await;
    eventually("its order", async || {
        (world.stored().await == 1).then_some(())
    })
    .await;
    worker.end().await;
    world.remove().await;
}
