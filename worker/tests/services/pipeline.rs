//! A whole pipeline with a real Kafka, Postgres and Redis, with its own topics and database.

use std::{sync::Arc, thread, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use shared::{
    cache::Cache,
    config::Kafka,
    order::Order,
    storage::Role,
    testing::{PATIENCE, TestDatabase, TestRedis, eventually, required},
};
use tokio::task::JoinHandle;
use worker::{
    config::Worker,
    kafka::{self, GroupState, Poller, dead_letter::DeadLetters},
    metrics::Metrics,
    pipeline::{
        Pipeline, breaker::RejectionBreaker, future::FutureGuard, waits::Waits,
        write_through::WriteThrough,
    },
};

/// Both topics; they are deleted when this value is dropped.
struct Topics(Kafka);

impl Topics {
    async fn create() -> Self {
        let topic = format!("test-pipeline-{:016x}", rand::random::<u64>());
        let config = Kafka {
            brokers: required("KAFKA_BROKERS"),
            dead_letter_topic: format!("{topic}-dlq"),
            group_id: topic.clone(),
            topic,
            ..Kafka::default()
        };
        kafka::create_topics(&config).await.unwrap();
        Self(config)
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.0.brokers);
        client
    }

    /// Sends orders to one partition, in their order.
    async fn send(&self, orders: &[Order]) {
        let producer: FutureProducer = self.client().create().unwrap();
        for order in orders {
            let json = order.to_json();
            let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.0.topic)
                .partition(0)
                .payload(json.as_slice());
            producer.send(record, PATIENCE).await.unwrap();
        }
    }

    /// Returns the number of dead letters.
    fn dead_letters(&self) -> Option<i64> {
        let consumer: BaseConsumer = self.client().create().ok()?;
        (0..6)
            .map(|partition| {
                let end = consumer.fetch_watermarks(
                    &self.0.dead_letter_topic,
                    partition,
                    Duration::from_secs(5),
                );
                Some(end.ok()?.1)
            })
            .sum()
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let (client, config) = (self.client(), self.0.clone());
        // A runtime cannot be entered from within another one, so use a thread.
        let deleting = thread::spawn(move || {
            let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
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

/// A running pipeline.
pub(crate) struct TestPipeline {
    /// The database in which it stores orders.
    pub(crate) database: TestDatabase,
    /// Its current waits.
    pub(crate) waits: Arc<Waits>,
    /// The breaker for its database.
    pub(crate) breaker: Arc<RejectionBreaker>,
    topics: Topics,
    poller: Poller,
    running: JoinHandle<()>,
    _redis: TestRedis,
}

impl TestPipeline {
    /// Sends `orders` to one partition, then starts a pipeline with `config`.
    pub(crate) async fn start(
        database: TestDatabase,
        breaker: RejectionBreaker,
        config: Worker,
        orders: &[Order],
    ) -> Self {
        let redis = TestRedis::start();
        let topics = Topics::create().await;
        topics.send(orders).await;
        let metrics = Metrics::new();
        let group = Arc::new(GroupState::new());
        let drain = kafka::DrainLimits {
            revoked: PATIENCE,
            shutdown: PATIENCE,
        };
        let started = kafka::start(&topics.0, 1 << 20, drain, group, metrics.clone()).unwrap();
        let (postgres, waits) = (database.connect(Role::Worker), Arc::new(Waits::new()));
        let cache = Cache::pooled(&redis.config()).unwrap();
        let breaker = Arc::new(breaker);
        let pipeline = Pipeline {
            postgres: postgres.clone(),
            write_through: WriteThrough::new(cache, postgres, Arc::clone(&waits)),
            dead_letters: DeadLetters::new(&topics.0).unwrap(),
            assignment: started.assignment,
            breaker: Arc::clone(&breaker),
            future: FutureGuard::new(Arc::default(), false),
            waits: Arc::clone(&waits),
            metrics,
        };
        let intake = started.intake;
        let running = tokio::spawn(async move { pipeline.run(&config, intake).await });
        Self {
            database,
            waits,
            breaker,
            topics,
            poller: started.poller,
            running,
            _redis: redis,
        }
    }

    /// Sends more orders to the same partition.
    pub(crate) async fn send(&self, orders: &[Order]) {
        self.topics.send(orders).await;
    }

    /// Waits until `count` orders are stored.
    pub(crate) async fn await_stored(&self, count: usize) {
        eventually(&format!("{count} stored orders"), async || {
            let stored: i64 = self.database.value("SELECT count(*) FROM orders").await;
            (stored == count as i64).then_some(())
        })
        .await;
    }

    /// Waits until there are `count` dead letters.
    pub(crate) async fn await_dead_letters(&self, count: usize) {
        eventually(&format!("{count} dead letters"), async || {
            (self.topics.dead_letters()? == count as i64).then_some(())
        })
        .await;
    }

    /// Returns the number of dead letters.
    pub(crate) fn dead_letters(&self) -> i64 {
        self.topics.dead_letters().unwrap()
    }

    /// Stops the pipeline in order. Every record must be finished.
    pub(crate) async fn stop(self) {
        self.poller.stop().await;
        self.running.await.unwrap();
    }
}
