//! Which versions are stored. Each is stored completely or not at all.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use shared::{
    order::{Order, OrderUid, REPRESENTATION, Revision},
    storage::{Change, ChangeSet, Class, ListFilter, Postgres, Role},
    testing::TestDatabase,
};
use sqlx::Connection;

use super::{apply, apply_as_the_worker_does, connect, read};
use crate::{change, erasure, order, revision, uid, version};

#[tokio::test]
async fn an_order_round_trips_byte_for_byte() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let orders: Vec<Order> = (0..50).map(|n| order(&format!("order-{n}"), n)).collect();
    let changes = orders
        .iter()
        .zip(0..)
        .map(|(order, offset)| change(order, offset))
        .collect();
    assert_eq!(apply(&postgres, changes).await, vec![true; 50]);
    for (order, offset) in orders.iter().zip(0..) {
        assert_eq!(
            read(&postgres, &order.order_uid).await,
            Some(revision(order, offset))
        );
    }
    let uids: Vec<OrderUid> = orders.iter().map(|order| uid(&order.order_uid)).collect();
    assert_eq!(postgres.read_many(&uids).await.unwrap().len(), 50);
    assert_eq!(read(&postgres, "unknown").await, None);
}

#[tokio::test]
async fn only_a_greater_version_replaces_and_it_replaces_all_children() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let (first, second) = (order("u", 1), order("u", 2));
    assert_eq!(apply(&postgres, vec![change(&first, 5)]).await, [true]);
    for older_or_equal in [4, 5] {
        assert_eq!(
            apply(&postgres, vec![change(&second, older_or_equal)]).await,
            [false]
        );
        assert_eq!(read(&postgres, "u").await, Some(revision(&first, 5)));
    }
    assert_eq!(apply(&postgres, vec![change(&second, 6)]).await, [true]);
    assert_eq!(read(&postgres, "u").await, Some(revision(&second, 6)));
    assert_eq!(
        database.value::<i64>("SELECT count(*) FROM items").await,
        second.items.len() as i64
    );
    assert_eq!(
        database.value::<i64>("SELECT count(*) FROM payments").await,
        1
    );
}

#[tokio::test]
async fn replaced_orders_are_noted_until_redis_has_them() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let store = async |offset| {
        let changes = ["a", "b"].map(|uid| change(&order(uid, offset as u64), offset));
        let (set, _) = ChangeSet::new(changes.to_vec());
        postgres.apply(&set).await.unwrap().cache_write
    };
    let under_way = async || {
        let all = postgres.abandoned_cache_writes(Duration::ZERO, 10).await;
        all.unwrap()
    };
    assert_eq!(store(1).await, None, "Redis has nothing older");
    let write = store(2).await.unwrap();
    assert_eq!(store(2).await, None, "nothing was replaced");
    assert_eq!(under_way().await, [(write, vec![uid("a"), uid("b")])]);
    let long = Duration::from_secs(600);
    let abandoned = postgres.abandoned_cache_writes(long, 10).await.unwrap();
    assert_eq!(abandoned, []);
    let oldest = async || postgres.cache_knowledge().await.unwrap().oldest_repair;
    assert!(oldest().await > Duration::ZERO);
    postgres.finish_cache_writes(&[write]).await.unwrap();
    assert_eq!(under_way().await, []);
    assert_eq!(oldest().await, Duration::ZERO);
}

#[tokio::test]
async fn an_erasure_is_compared_by_version() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let order = order("u", 1);
    apply(&postgres, vec![change(&order, 1)]).await;
    let born = "SELECT id::text || created_at::text FROM orders";
    let identity: String = database.value(born).await;

    assert_eq!(apply(&postgres, vec![erasure("u", 2)]).await, [true]);
    let erased = Revision {
        uid: uid("u"),
        version: version(2),
        document: None,
    };
    assert_eq!(read(&postgres, "u").await, Some(erased.clone()));
    for table in ["deliveries", "payments", "items"] {
        assert_eq!(
            database
                .value::<i64>(&format!("SELECT count(*) FROM {table}"))
                .await,
            0,
            "{table}"
        );
    }
    let blank = "SELECT string_agg(DISTINCT value, ',') FROM orders o, jsonb_each_text(to_jsonb(o) \
                     - ARRAY['id', 'order_uid', 'source_timestamp_ms', 'source_offset', \
                             'source_partition', 'representation', 'erased_at', 'created_at', \
                             'updated_at', 'date_created'] \
                     || jsonb_build_object( \
                         'date_created', extract(epoch FROM date_created)::int8))";
    assert_eq!(database.value::<String>(blank).await, ",0");
    assert!(
        postgres
            .list(&ListFilter::default(), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(postgres.newest(10).await.unwrap().is_empty());

    assert_eq!(apply(&postgres, vec![change(&order, 1)]).await, [false]);
    assert_eq!(read(&postgres, "u").await, Some(erased));
    assert_eq!(apply(&postgres, vec![change(&order, 3)]).await, [true]);
    assert_eq!(read(&postgres, "u").await, Some(revision(&order, 3)));
    assert_eq!(database.value::<String>(born).await, identity);
    assert!(
        database
            .value::<bool>("SELECT erased_at IS NULL FROM orders")
            .await
    );
}

#[tokio::test]
async fn an_erasure_of_an_unknown_order_rejects_older_records() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    assert_eq!(apply(&postgres, vec![erasure("u", 7)]).await, [true]);
    assert_eq!(
        apply(&postgres, vec![change(&order("u", 1), 6)]).await,
        [false]
    );
    assert_eq!(read(&postgres, "u").await.unwrap().document, None);
}

/// Two writers store the same changes in random order, repeatedly and in random batches. The result
/// is always the same state. With many orders, most are copied first. With few orders, each is
/// updated repeatedly.
#[tokio::test]
async fn every_order_of_arrival_gives_the_same_state() {
    for (seed, orders) in (0..8).zip([12, 200].into_iter().cycle()) {
        let mut rng = StdRng::seed_from_u64(seed);
        let changes: Vec<Change> = (0..10 * orders)
            .map(|offset| {
                let name = format!("u{}", rng.random_range(0..orders));
                match rng.random_range(0..5) {
                    0 => erasure(&name, offset),
                    _ => change(&order(&name, rng.random()), offset),
                }
            })
            .collect();
        let mut arrivals: Vec<Change> = changes
            .iter()
            .flat_map(|change| vec![change.clone(); rng.random_range(1..=3)])
            .collect();
        arrivals.shuffle(&mut rng);

        let database = TestDatabase::migrated().await;
        let writers = [
            database.connect(Role::Worker),
            database.connect(Role::Worker),
        ];
        let halves = arrivals.split_at(arrivals.len() / 2);
        tokio::join!(
            write_all(&writers[0], halves.0, seed),
            write_all(&writers[1], halves.1, seed + 1)
        );

        let (newest, _) = ChangeSet::new(changes);
        for change in newest.as_slice() {
            let document = change.order.as_ref().map(|order| order.to_json().into());
            let expected = Revision {
                uid: change.uid,
                version: change.version,
                document,
            };
            assert_eq!(
                read(&writers[0], change.uid.as_str()).await,
                Some(expected),
                "seed {seed}"
            );
        }
        let items: usize = newest
            .as_slice()
            .iter()
            .filter_map(|change| Some(change.order.as_ref()?.items.len()))
            .sum();
        assert_eq!(
            database.value::<i64>("SELECT count(*) FROM items").await,
            items as i64,
            "seed {seed}"
        );
    }
}

async fn write_all(postgres: &Postgres, changes: &[Change], seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut left = changes;
    while !left.is_empty() {
        let (batch, rest) = left.split_at(rng.random_range(1..=left.len().min(400)));
        apply_as_the_worker_does(postgres, batch.to_vec()).await;
        left = rest;
    }
}

#[tokio::test]
async fn a_rejected_row_rejects_its_batch_with_the_reason() {
    let database = TestDatabase::migrated().await;
    database
        .execute("ALTER TABLE orders ADD CONSTRAINT no_poison CHECK (customer_id <> 'poison')")
        .await;
    let postgres = database.connect(Role::Worker);
    let mut poison = order("bad", 1);
    poison.customer_id = "poison".into();
    let (set, _) = ChangeSet::new(vec![change(&order("good", 2), 1), change(&poison, 2)]);
    let error = postgres.apply(&set).await.unwrap_err();
    assert_eq!(
        (error.class(), error.sqlstate()),
        (Class::Record, Some("23514"))
    );
    assert_eq!(
        error.to_string(),
        "Postgres: SQLSTATE 23514, constraint no_poison"
    );
    assert_eq!(read(&postgres, "good").await, None);
    assert_eq!(
        apply(&postgres, vec![change(&order("good", 2), 1)]).await,
        [true]
    );
}

#[tokio::test]
async fn a_lock_timeout_is_reported_as_locked() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    apply(&postgres, vec![change(&order("u", 1), 1)]).await;
    let blocker = database.connect(Role::Api);
    let holding = tokio::spawn({
        let url = database.url.clone();
        async move {
            let mut rival = connect(&url).await;
            let mut transaction = rival.begin().await.unwrap();
            sqlx::query("SELECT 1 FROM orders FOR UPDATE")
                .execute(&mut *transaction)
                .await
                .unwrap();
            sqlx::query("SELECT pg_sleep(60)")
                .execute(&mut *transaction)
                .await
                .unwrap();
        }
    });
    shared::testing::eventually("the rival's lock", async || {
        let locks: i64 = database
            .value(
                "SELECT count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND wait_event = 'PgSleep'",
            )
            .await;
        (locks == 1).then_some(())
    })
    .await;
    // The lock does not block reads.
    assert!(blocker.read(&uid("u")).await.unwrap().is_some());
    let (set, _) = ChangeSet::new(vec![change(&order("u", 2), 2)]);
    let error = postgres.apply(&set).await.unwrap_err();
    assert_eq!((error.class(), error.is_in_row()), (Class::Locked, false));
    holding.abort();
}

#[tokio::test]
async fn a_lock_timeout_of_copy_is_not_the_fault_of_a_row() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    apply(&postgres, vec![change(&order("u", 1), 1)]).await;
    let mut rival = connect(&database.url).await;
    let mut transaction = rival.begin().await.unwrap();
    sqlx::query("UPDATE orders SET order_uid = 'order-7'")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let orders = (0..32).map(|n| order(&format!("order-{n}"), n));
    let (set, _) = ChangeSet::new(orders.map(|order| change(&order, 2)).collect());
    let error = postgres.apply(&set).await.unwrap_err();
    assert_eq!((error.class(), error.is_in_row()), (Class::Locked, false));
    transaction.rollback().await.unwrap();
}

/// During a rolling upgrade, each worker states the shape that it knows.
#[tokio::test]
async fn each_writer_states_its_shape() {
    const SHAPES: &str = "SELECT string_agg(DISTINCT representation::text, ',') FROM orders";
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    // Copied, because there are many.
    let orders: Vec<Order> = (0..32).map(|n| order(&format!("order-{n}"), n)).collect();
    let store = async |offset| {
        let changes = orders.iter().map(|order| change(order, offset));
        apply_as_the_worker_does(&postgres, changes.collect()).await;
        database.value::<String>(SHAPES).await
    };
    let own = REPRESENTATION.to_string();
    assert_eq!(store(1).await, own);
    database
        .execute("UPDATE orders SET representation = 99")
        .await;
    assert_eq!(store(1).await, "99", "a stale record changes nothing");
    assert_eq!(
        store(2).await,
        own,
        "an older worker states the older shape"
    );
    let found = read(&postgres, &orders[0].order_uid).await;
    assert_eq!(found, Some(revision(&orders[0], 2)));
}
