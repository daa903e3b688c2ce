//! A whole pipeline with a real Kafka, Postgres and Redis, with its own topics and database.

use std::{sync::Arc, time::Duration};

use shared::{
    cache::Cache,
    config::Kafka,
    order::Order,
    storage::Role,
    testing::{PATIENCE, TestDatabase, TestRedis, eventually},
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

use crate::topics::Topics;

/// What differs between the pipelines of the tests.
pub(crate) struct Options {
    pub(crate) breaker: RejectionBreaker,
    pub(crate) future: FutureGuard,
    pub(crate) config: Worker,
    /// Limit of a drain.
    pub(crate) drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            breaker: RejectionBreaker::new(false),
            future: FutureGuard::new(Arc::default(), false),
            config: Worker::default(),
            drain: PATIENCE,
        }
    }
}

/// A pipeline that runs.
pub(crate) struct Running {
    /// Its current waits.
    pub(crate) waits: Arc<Waits>,
    /// The breaker for its database.
    pub(crate) breaker: Arc<RejectionBreaker>,
    poller: Poller,
    pipeline: JoinHandle<()>,
}

impl Running {
    /// Starts a pipeline that reads the topic of `kafka`.
    pub(crate) fn start(
        kafka: &Kafka,
        database: &TestDatabase,
        redis: &TestRedis,
        options: Options,
    ) -> Self {
        let metrics = Metrics::new();
        let drain = kafka::DrainLimits {
            revoked: options.drain,
            shutdown: options.drain,
        };
        let group = Arc::new(GroupState::new());
        let started = kafka::start(kafka, 1 << 20, drain, group, metrics.clone()).unwrap();
        let (postgres, waits) = (database.connect(Role::Worker), Arc::new(Waits::new()));
        let cache = Cache::pooled(&redis.config()).unwrap();
        let breaker = Arc::new(options.breaker);
        let pipeline = Pipeline {
            postgres: postgres.clone(),
            write_through: WriteThrough::new(cache, postgres, Arc::clone(&waits)),
            dead_letters: DeadLetters::new(kafka).unwrap(),
            assignment: started.assignment,
            breaker: Arc::clone(&breaker),
            future: options.future,
            waits: Arc::clone(&waits),
            metrics,
        };
        let (intake, config) = (started.intake, options.config);
        Self {
            waits,
            breaker,
            poller: started.poller,
            pipeline: tokio::spawn(async move { pipeline.run(&config, intake).await }),
        }
    }

    /// Stops the pipeline in order.
    pub(crate) async fn stop(self) {
        self.poller.stop().await;
        self.pipeline.await.unwrap();
    }
}

/// A running pipeline with its own services.
pub(crate) struct TestPipeline {
    /// The database in which it stores orders.
    pub(crate) database: TestDatabase,
    /// Its current waits.
    pub(crate) waits: Arc<Waits>,
    /// The breaker for its database.
    pub(crate) breaker: Arc<RejectionBreaker>,
    topics: Topics,
    running: Running,
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
        let topics = Topics::create("pipeline").await;
        send(&topics, orders).await;
        let options = Options {
            breaker,
            config,
            ..Options::default()
        };
        let running = Running::start(&topics.kafka, &database, &redis, options);
        Self {
            database,
            waits: Arc::clone(&running.waits),
            breaker: Arc::clone(&running.breaker),
            topics,
            running,
            _redis: redis,
        }
    }

    /// Sends more orders to the same partition.
    pub(crate) async fn send(&self, orders: &[Order]) {
        send(&self.topics, orders).await;
    }

    /// Waits until `count` orders are stored.
    pub(crate) async fn await_stored(&self, count: usize) {
        await_stored(&self.database, count).await;
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
        self.running.stop().await;
    }
}

/// Waits until `count` orders are stored in `database`.
pub(crate) async fn await_stored(database: &TestDatabase, count: usize) {
    eventually(&format!("{count} stored orders"), async || {
        let stored: i64 = database.value("SELECT count(*) FROM orders").await;
        (stored == count as i64).then_some(())
    })
    .await;
}

/// Sends orders to one partition, in their order.
async fn send(topics: &Topics, orders: &[Order]) {
    let values: Vec<Vec<u8>> = orders.iter().map(Order::to_json).collect();
    topics.send_in_order(0, &values).await;
}
