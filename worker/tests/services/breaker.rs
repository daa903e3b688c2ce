//! An open breaker closes again: the whole pipeline, with a real Kafka.

use std::time::Duration;

use shared::{
    order::{Order, sample::Generator},
    testing::{TestDatabase, eventually},
};
use worker::{config::Worker, pipeline::breaker::RejectionBreaker};

use crate::pipeline::TestPipeline;

/// 30 s in production.
const TRIAL_INTERVAL: Duration = Duration::from_millis(100);

/// More batches than may use Postgres at once, and more than may be under way.
const BAD_ROWS: usize = 6;

/// Each bad row is a batch of its own and its trials fail. The row that closes the breaker comes
/// last. So a waiting batch must hold neither a turn nor the room of a batch under way.
#[tokio::test(flavor = "multi_thread")]
async fn single_bad_rows_do_not_hold_the_breaker_open() {
    let database = TestDatabase::migrated().await;
    database
        .execute("ALTER TABLE payments ADD CONSTRAINT test CHECK (amount <> 424242)")
        .await;
    let mut orders: Vec<Order> = Generator::new(11, 1..=1).take(BAD_ROWS + 1).collect();
    for order in &mut orders[..BAD_ROWS] {
        order.payment.amount = 424_242;
    }
    let one_by_one = Worker {
        batch_size: 1,
        ..Worker::default()
    };
    let breaker = RejectionBreaker::trying_every(TRIAL_INTERVAL, true);
    let pipeline = TestPipeline::start(database, breaker, one_by_one, &orders).await;

    eventually("a closed breaker", async || {
        (!pipeline.breaker.is_open()).then_some(())
    })
    .await;
    // Postgres is now known to accept rows, so a rejected row is the record's fault.
    pipeline.await_dead_letters(BAD_ROWS).await;
    let stored: String = pipeline
        .database
        .value("SELECT order_uid FROM orders")
        .await;
    assert_eq!(stored, orders[BAD_ROWS].order_uid);
    pipeline.stop().await;
}

/// The row that closes the breaker may be in any part of a batch, so each part is tried, not only
/// the first one.
#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_a_batch_counts_as_a_trial() {
    let database = TestDatabase::migrated().await;
    database
        .execute("ALTER TABLE payments ADD CONSTRAINT test CHECK (amount <> 424242)")
        .await;
    let mut orders: Vec<Order> = Generator::new(12, 1..=1).take(120).collect();
    orders.sort_by(|a, b| a.order_uid.cmp(&b.order_uid));
    // The breaker opens in the middle of the batch, after a hundred rejected rows in a row. Only
    // the last row in the order of writing is good.
    for order in &mut orders[..119] {
        order.payment.amount = 424_242;
    }
    let whole = Worker {
        batch_linger: Duration::from_secs(2),
        ..Worker::default()
    };
    let breaker = RejectionBreaker::trying_every(Duration::from_millis(10), false);
    let pipeline = TestPipeline::start(database, breaker, whole, &orders).await;
    pipeline.await_stored(1).await;
    pipeline.await_dead_letters(119).await;
    pipeline.stop().await;
}
