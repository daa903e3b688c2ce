//! Timestamps from the future, through the whole pipeline. One producer's clock is wrong, or every
//! clock but the worker's is ahead.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use shared::{
    order::{Order, Reason, sample::Generator},
    testing::{TestDatabase, TestRedis, eventually},
};
use worker::{
    kafka::dead_letter::Reader,
    pipeline::{
        future::{Clock, FutureGuard},
        waits::Wait,
    },
};

use crate::{
    pipeline::{Options, Running, await_stored},
    topics::{PARTITIONS, Topics},
};

/// Less than the hour from which the broker rejects a timestamp.
const AHEAD: Duration = Duration::from_secs(40 * 60);

/// A topic whose timestamps are set by its producers, and the services of its worker.
struct World {
    topics: Topics,
    database: TestDatabase,
    redis: TestRedis,
    orders: Generator,
}

impl World {
    async fn new(name: &str, seed: u64) -> Self {
        Self {
            topics: Topics::with_producer_times(name).await,
            database: TestDatabase::migrated().await,
            redis: TestRedis::start(),
            orders: Generator::new(seed, 1..=1),
        }
    }

    /// Starts a worker. Like a real one, it is careful if the newest dead letters are records from
    /// the future.
    fn start(&self, clock: Arc<Clock>) -> Running {
        let kafka = &self.topics.kafka;
        let suspicious = Reader::open(kafka)
            .and_then(|reader| reader.newest_have_reason(Reason::FutureTimestamp, 10, 200))
            .unwrap();
        let options = Options {
            future: FutureGuard::new(clock, suspicious),
            // Held records are never finished.
            drain: Duration::ZERO,
            ..Options::default()
        };
        Running::start(kafka, &self.database, &self.redis, options)
    }

    /// Sends new orders to all partitions, with timestamps that are `ahead` of now.
    async fn send(&mut self, count: usize, ahead: Duration) {
        let time = SystemTime::now() + ahead;
        let millis = time.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let orders: Vec<Order> = self.orders.by_ref().take(count).collect();
        let values: Vec<Vec<u8>> = orders.iter().map(Order::to_json).collect();
        let values = (0..PARTITIONS).cycle().zip(&values);
        self.topics.send_at(Some(millis), values).await;
    }

    async fn stored(&self) -> i64 {
        self.database.value("SELECT count(*) FROM orders").await
    }

    fn dead_letters(&self) -> i64 {
        self.topics.dead_letters().unwrap()
    }
}

async fn await_stop(worker: &Running) {
    eventually("a worker that waits for its clock", async || {
        worker.waits.waiting_for(Wait::Clock).then_some(())
    })
    .await;
}

/// The worker's clock is 40 minutes behind the clocks of the producers, the broker and Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_behind_stores_everything() {
    let mut world = World::new("behind", 31).await;
    world.send(300, AHEAD).await;
    let clock = Arc::new(Clock::default());
    clock.observe(SystemTime::now() + AHEAD);
    let worker = world.start(clock);
    await_stored(&world.database, 300).await;
    assert_eq!(world.dead_letters(), 0);
    worker.stop().await;
}

/// Postgres cannot correct the worker's clock here, because its own clock is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_full_of_future_records_is_not_dead_lettered_even_by_restarts() {
    let mut world = World::new("ahead", 32).await;
    world.send(300, AHEAD).await;
    let clock = Arc::new(Clock::default());
    let worker = world.start(Arc::clone(&clock));
    await_stop(&worker).await;
    eventually("the first dead letters", async || {
        (world.dead_letters() == 20).then_some(())
    })
    .await;
    worker.stop().await;
    for _ in 0..2 {
        let worker = world.start(Arc::clone(&clock));
        await_stop(&worker).await;
        worker.stop().await;
        assert_eq!(world.dead_letters(), 20);
    }
    let worker = world.start(Arc::clone(&clock));
    await_stop(&worker).await;
    // An operator corrects the clock.
    clock.observe(SystemTime::now() + AHEAD);
    eventually("the other orders", async || {
        (world.stored().await >= 280).then_some(())
    })
    .await;
    assert!(!worker.waits.waiting_for(Wait::Clock));
    assert_eq!(world.dead_letters(), 20);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_producer_whose_clock_is_ahead_is_dead_lettered_among_others() {
    let mut world = World::new("skewed", 33).await;
    for _ in 0..5 {
        world.send(12, AHEAD).await;
        world.send(30, Duration::ZERO).await;
    }
    let worker = world.start(Arc::default());
    await_stored(&world.database, 150).await;
    eventually("the dead letters", async || {
        (world.dead_letters() == 60).then_some(())
    })
    .await;
    assert!(!worker.waits.waiting_for(Wait::Clock));
    worker.stop().await;
}

/// The worker stops if it reads only the records of one wrong producer. A record of another
/// producer shows that the worker's clock is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_another_producer_resumes_the_intake() {
    let mut world = World::new("alone", 34).await;
    world.send(100, AHEAD).await;
    let worker = world.start(Arc::default());
    await_stop(&worker).await;
    world.send(1, Duration::ZERO).await;
    eventually("all dead letters", async || {
        (world.dead_letters() == 100).then_some(())
    })
    .await;
    await_stored(&world.database, 1).await;
    worker.stop().await;
}
