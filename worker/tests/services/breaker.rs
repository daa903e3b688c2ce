//! The way out of an open breaker, through the whole pipeline, with a real Kafka in front.

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
    order::{Order, sample::Generator},
    storage::Role,
    testing::{PATIENCE, TestDatabase, TestRedis, eventually, required},
};
use worker::{
    config::Worker,
    kafka::{self, GroupState, dead_letter::DeadLetters},
    metrics::Metrics,
    pipeline::{
        Pipeline, breaker::Breaker, future::FutureGuard, waits::Waits, write_through::WriteThrough,
    },
};

/// In production half a minute.
const TRIAL_INTERVAL: Duration = Duration::from_millis(100);

/// More batches than may be in Postgres, and more than may be under way.
const BAD_ROWS: usize = 6;

/// Both topics, which are deleted with it.
struct Topics(Kafka);

impl Topics {
    async fn create() -> Self {
        let topic = format!("test-breaker-{:016x}", rand::random::<u64>());
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

    /// How many dead letters there are.
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
        // A runtime cannot be entered from within another one, hence the thread.
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

/// Each bad row is a batch of its own and waits for its trial in vain. The row that closes the breaker is behind them all:
/// waiting must keep neither the right to use Postgres nor the room for batches under way.
#[tokio::test(flavor = "multi_thread")]
async fn single_bad_rows_do_not_hold_the_breaker_open() {
    let (database, redis) = (TestDatabase::migrated().await, TestRedis::start());
    database
        .execute("ALTER TABLE payments ADD CONSTRAINT test CHECK (amount <> 424242)")
        .await;
    let topics = Topics::create().await;
    let mut orders: Vec<Order> = Generator::new(11, 1..=1).take(BAD_ROWS + 1).collect();
    for order in &mut orders[..BAD_ROWS] {
        order.payment.amount = 424_242;
    }
    topics.send(&orders).await;

    let metrics = Metrics::new();
    let group = Arc::new(GroupState::new());
    let drain = kafka::DrainLimits {
        revoked: PATIENCE,
        shutdown: PATIENCE,
    };
    let started = kafka::start(&topics.0, 1 << 20, drain, group, metrics.clone()).unwrap();
    let (postgres, waits) = (database.connect(Role::Worker), Arc::new(Waits::new()));
    let cache = Cache::pooled(&redis.config()).unwrap();
    let breaker = Arc::new(Breaker::trying_every(TRIAL_INTERVAL, true));
    let pipeline = Pipeline {
        postgres: postgres.clone(),
        write_through: WriteThrough::new(cache, postgres, Arc::clone(&waits)),
        dead_letters: DeadLetters::new(&topics.0).unwrap(),
        assignment: started.assignment,
        breaker: Arc::clone(&breaker),
        future: FutureGuard::new(Arc::default(), false),
        waits,
        metrics,
    };
    let one_by_one = Worker {
        batch_size: 1,
        ..Worker::default()
    };
    let running = tokio::spawn(async move { pipeline.run(&one_by_one, started.intake).await });

    eventually("a closed breaker", async || {
        (!breaker.is_open()).then_some(())
    })
    .await;
    // Now that the database is known to accept rows, what it refuses is the records' fault.
    eventually("a dead letter for each bad row", async || {
        (topics.dead_letters()? == BAD_ROWS as i64).then_some(())
    })
    .await;
    let stored: String = database.value("SELECT order_uid FROM orders").await;
    assert_eq!(stored, orders[BAD_ROWS].order_uid);
    started.poller.stop().await;
    running.await.unwrap();
}
