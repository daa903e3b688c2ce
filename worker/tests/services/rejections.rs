//! Rows that only Postgres rejects, through the whole pipeline. Such a row must not affect other
//! rows.

use std::time::Duration;

use shared::{
    order::{Order, sample::Generator},
    testing::{TestDatabase, eventually},
};
use worker::{
    config::Worker,
    pipeline::{breaker::RejectionBreaker, waits::Wait},
};

use crate::pipeline::TestPipeline;

/// More batches than may be under way at once.
const BAD_ROWS: usize = 7;
const GOOD_ROWS: usize = 20;
const CUSTOMER: &str = "rejected";

/// Generates the orders of `seed`. The first `BAD_ROWS` belong to the customer that is rejected.
fn orders(seed: u64) -> Vec<Order> {
    let mut orders: Vec<Order> = Generator::new(seed, 1..=2)
        .take(BAD_ROWS + GOOD_ROWS)
        .collect();
    for order in &mut orders[..BAD_ROWS] {
        order.customer_id = CUSTOMER.into();
    }
    orders
}

/// Creates a database with a trigger that runs `what` for orders of the customer.
async fn with_trigger(what: &str) -> TestDatabase {
    let database = TestDatabase::migrated().await;
    let function = format!(
        "CREATE FUNCTION test() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.customer_id = '{CUSTOMER}' THEN {what}; END IF; RETURN NEW; END $$"
    );
    for statement in [
        function.as_str(),
        "CREATE TRIGGER test BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION test()",
    ] {
        database.execute(statement).await;
    }
    database
}

fn raise(code: &str) -> String {
    format!("RAISE EXCEPTION 'no' USING ERRCODE = '{code}'")
}

fn one_by_one() -> Worker {
    Worker {
        batch_size: 1,
        ..Worker::default()
    }
}

/// A configuration with a long linger, so that one batch holds good and bad rows.
fn together() -> Worker {
    Worker {
        batch_linger: Duration::from_secs(2),
        ..Worker::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_trigger_rejects_is_dead_lettered_and_the_others_are_stored() {
    // Codes of a bad record, of an unknown cause, of the deployment and of Postgres itself.
    for (seed, code) in (0..).zip(["P0001", "UE042", "42501", "XX000"]) {
        for config in [one_by_one(), together()] {
            let database = with_trigger(&raise(code)).await;
            let breaker = RejectionBreaker::new(false);
            let pipeline = TestPipeline::start(database, breaker, config, &orders(seed)).await;
            pipeline.await_stored(GOOD_ROWS).await;
            pipeline.await_dead_letters(BAD_ROWS).await;
            eventually("no wait", async || {
                pipeline.waits.reasons().next().is_none().then_some(())
            })
            .await;
            assert!(!pipeline.breaker.is_open(), "{code}");
            pipeline.stop().await;
        }
    }
}

/// A missing right must not empty the topic.
#[tokio::test(flavor = "multi_thread")]
async fn while_no_row_passes_nothing_is_dead_lettered() {
    let database = with_trigger(&raise("42501")).await;
    let (orders, breaker) = (orders(11), RejectionBreaker::new(false));
    let bad = &orders[..BAD_ROWS];
    let pipeline = TestPipeline::start(database, breaker, one_by_one(), bad).await;
    eventually("every bad row to be waited for", async || {
        (pipeline.waits.count(Wait::Deployment) == BAD_ROWS).then_some(())
    })
    .await;
    assert_eq!(pipeline.dead_letters(), 0);
    // An erased or outdated order proves nothing; a stored one proves that Postgres accepts rows.
    pipeline.send(&orders[BAD_ROWS..]).await;
    pipeline.await_stored(GOOD_ROWS).await;
    pipeline.await_dead_letters(BAD_ROWS).await;
    pipeline.stop().await;
}

/// A row that Postgres neither accepts nor rejects has a known wait. It delays nothing else:
/// neither the rest of its batch, nor later batches, nor another version of the same order.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_never_pass_do_not_block_other_rows() {
    for config in [one_by_one(), together()] {
        let database = with_trigger(&raise("57014")).await;
        let breaker = RejectionBreaker::new(false);
        let orders = orders(21);
        let pipeline = TestPipeline::start(database, breaker, config, &orders).await;
        pipeline.await_stored(GOOD_ROWS).await;
        let mut other = orders[0].clone();
        other.customer_id = "accepted".into();
        pipeline.send(&[other]).await;
        pipeline.await_stored(GOOD_ROWS + 1).await;
        assert!(pipeline.waits.waiting_for(Wait::Postgres));
        assert_eq!(pipeline.dead_letters(), 0);
        pipeline
            .database
            .execute("DROP TRIGGER test ON orders")
            .await;
        pipeline.await_stored(GOOD_ROWS + BAD_ROWS).await;
        pipeline.stop().await;
    }
}

/// A probe or an alert may look at any moment, and an attempt may take as long as its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn the_wait_reason_is_reported_during_attempts_too() {
    let database = TestDatabase::migrated().await;
    database.shut().await;
    let orders = orders(31);
    let pipeline = TestPipeline::start(
        database,
        RejectionBreaker::new(false),
        one_by_one(),
        &orders,
    )
    .await;
    eventually("a wait for Postgres", async || {
        pipeline.waits.waiting_for(Wait::Postgres).then_some(())
    })
    .await;
    let looks = 2000;
    for look in 0..looks {
        assert!(pipeline.waits.waiting_for(Wait::Postgres), "look {look}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pipeline.database.open().await;
    pipeline.await_stored(orders.len()).await;
    eventually("no wait", async || {
        pipeline.waits.reasons().next().is_none().then_some(())
    })
    .await;
    pipeline.stop().await;
}
