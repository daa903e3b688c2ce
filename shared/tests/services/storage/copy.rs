//! Batches that are large enough for `COPY`.

use shared::{
    order::Order,
    storage::{Change, ChangeSet, Class, Postgres, Role},
    testing::TestDatabase,
};
use sqlx::Connection;

use super::{apply, connect, insert_blank, read};
use crate::{change, erasure, order, version};

/// Large enough for `COPY`.
const MANY: u64 = 100;

fn many_orders() -> Vec<Order> {
    (0..MANY).map(|n| order(&format!("u{n}"), n)).collect()
}

#[tokio::test]
async fn an_order_stored_by_another_writer_during_the_copy_is_compared_by_version() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let orders = many_orders();
    let offset_of_rival = MANY as i64 / 2;
    // The rival commits only when the copy waits for it.
    let mut rival = connect(&database.url).await;
    let mut transaction = rival.begin().await.unwrap();
    let insert = insert_blank(
        "order_uid, source_timestamp_ms, source_offset, source_partition",
        &format!(
            "'u' || n, {}, {offset_of_rival}, 0",
            version(0).timestamp_ms
        ),
        "10, 90, 10",
    );
    sqlx::query(sqlx::AssertSqlSafe(insert))
        .execute(&mut *transaction)
        .await
        .unwrap();
    let applying = tokio::spawn({
        let changes = orders.iter().zip(0..).map(|(order, n)| change(order, n));
        let (postgres, changes) = (postgres.clone(), changes.collect::<Vec<_>>());
        async move { apply(&postgres, changes).await }
    });
    shared::testing::eventually("the copy waits for the rival", async || {
        let waiting: i64 = database
            .value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'Lock' AND query LIKE 'COPY orders%'",
            )
            .await;
        (waiting == 1).then_some(())
    })
    .await;
    transaction.commit().await.unwrap();

    let won = applying.await.unwrap();
    let mut uids: Vec<(String, i64)> = (0..MANY as i64).map(|n| (format!("u{n}"), n)).collect();
    uids.sort();
    for ((uid, offset), won) in uids.iter().zip(won) {
        let rivals = offset % 10 == 0 && *offset > 0;
        assert_eq!(won, !rivals || *offset > offset_of_rival, "{uid}");
        let stored: i64 = database
            .value(&format!(
                "SELECT source_offset FROM orders WHERE order_uid = '{uid}'"
            ))
            .await;
        let expected = if won { *offset } else { offset_of_rival };
        assert_eq!(stored, expected, "{uid}");
    }
}

/// Writes enough batches of new orders that the next batch is copied without a lookup.
async fn earn_trust(postgres: &Postgres) {
    for batch in 0..16 {
        let orders = (0..32).map(|n| order(&format!("t{batch}-{n}"), n));
        let changes = orders.map(|order| change(&order, 1)).collect();
        assert_eq!(apply(postgres, changes).await, [true; 32]);
    }
}

#[tokio::test]
async fn a_batch_copied_without_lookup_still_compares_versions() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let orders = many_orders();
    earn_trust(&postgres).await;
    let first = orders[..50].iter().map(|order| change(order, 5)).collect();
    assert_eq!(apply(&postgres, first).await, [true; 50]);

    // Half of the fifty known orders lose. The two erasures, one of an unknown order, are not
    // copied.
    let offset = |n: usize| if n.is_multiple_of(2) { 7 } else { 3 };
    let known = orders[..50].iter().enumerate();
    let mut changes: Vec<Change> = known.map(|(n, order)| change(order, offset(n))).collect();
    changes.extend(orders[50..].iter().map(|order| change(order, 1)));
    changes[0] = erasure("u0", 7);
    changes.push(erasure("unheard-of", 1));
    let (set, _) = ChangeSet::new(changes);
    let applied = postgres.apply(&set).await.unwrap();
    for (change, won) in set.as_slice().iter().zip(applied.won) {
        assert_eq!(won, change.version.offset != 3, "{}", change.uid);
    }
    let offset = async |uid: &str| -> i64 {
        database
            .value(&format!(
                "SELECT source_offset FROM orders WHERE order_uid = '{uid}'"
            ))
            .await
    };
    assert_eq!(offset("u0").await, 7);
    assert_eq!(offset("u1").await, 5);
    assert_eq!(offset("u2").await, 7);
    assert_eq!(offset("u99").await, 1);
    let lines = "SELECT count(*) FROM items JOIN orders ON orders.id = order_id WHERE order_uid = ";
    for (uid, expected) in [("u0", 0), ("u2", orders[2].items.len())] {
        let count: i64 = database.value(&format!("{lines}'{uid}'")).await;
        assert_eq!(count, expected as i64, "{uid}");
    }
}

/// Each session has its own caches, so a session that has written batches writes the next one
/// faster. Other calls use other sessions.
#[tokio::test]
async fn batches_use_two_sessions_and_other_calls_do_not_wait_for_them() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let write = async |name: &str| {
        for batch in 0..20 {
            let orders = (0..40).map(|n| order(&format!("{name}-{batch}-{n}"), n));
            apply(&postgres, orders.map(|order| change(&order, 1)).collect()).await;
        }
    };
    tokio::join!(write("a"), write("b"));
    let sessions = "SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = current_database() AND application_name = 'order-worker'";
    assert_eq!(database.value::<i64>(sessions).await, 2);

    let lock = database.lock("orders").await;
    let locked_out = async {
        let waiting = format!("{sessions} AND wait_event_type = 'Lock'");
        shared::testing::eventually("both batches wait", async || {
            (database.value::<i64>(&waiting).await == 2).then_some(())
        })
        .await;
        postgres.now().await.unwrap();
        drop(lock);
    };
    let one = |name: &str| apply(&postgres, vec![change(&order(name, 1), 1)]);
    let (first, second, ()) = tokio::join!(one("c"), one("d"), locked_out);
    assert_eq!((first, second), (vec![true], vec![true]));
}

#[tokio::test]
async fn a_row_rejected_in_a_copy_rejects_its_batch_with_the_reason() {
    let database = TestDatabase::migrated().await;
    database
        .execute("ALTER TABLE items ADD CONSTRAINT no_poison CHECK (name <> 'poison')")
        .await;
    let postgres = database.connect(Role::Worker);
    let mut orders = many_orders();
    orders[50].items[0].name = "poison".into();
    let changes = || orders.iter().map(|order| change(order, 1));
    let (set, _) = ChangeSet::new(changes().collect());
    let error = postgres.apply(&set).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Postgres: SQLSTATE 23514, constraint no_poison"
    );
    assert_eq!(error.class(), Class::Record);
    assert_eq!(read(&postgres, "u0").await, None);
    orders[50].items[0].name = "harmless".into();
    let changes = orders.iter().map(|order| change(order, 1)).collect();
    assert_eq!(apply(&postgres, changes).await, [true; MANY as usize]);
}

#[tokio::test]
async fn a_sequence_set_back_by_a_failover_stops_no_worker() {
    let database = TestDatabase::migrated().await;
    let (first, second) = (
        database.connect(Role::Worker),
        database.connect(Role::Worker),
    );
    let orders = many_orders();
    let changes = |range: std::ops::Range<usize>| -> Vec<Change> {
        orders[range].iter().map(|order| change(order, 1)).collect()
    };
    apply(&first, changes(0..50)).await;
    database
        .execute("SELECT setval('orders_id_seq', 1, false)")
        .await;
    // A small batch is upserted at once, a large one after a failed copy. Neither steps through the
    // ids of the rival.
    for range in [50..52, 52..100] {
        let (set, _) = ChangeSet::new(changes(range));
        second.apply(&set).await.unwrap();
    }
    assert_eq!(
        database.value::<i64>("SELECT count(*) FROM orders").await,
        MANY as i64
    );
}

#[tokio::test]
async fn copy_falls_back_to_an_upsert_for_a_wider_column() {
    let database = TestDatabase::migrated().await;
    database
        .execute("ALTER TABLE items ALTER COLUMN sale TYPE BIGINT")
        .await;
    let postgres = database.connect(Role::Worker);
    let changes = many_orders().iter().map(|order| change(order, 1)).collect();
    assert_eq!(apply(&postgres, changes).await, [true; MANY as usize]);
}

const BLOCKS_OF_IDS: &str = include_str!("../../../../migrations/0004_take_ids_in_blocks.up.sql");
const SINGLE_IDS: &str = include_str!("../../../../migrations/0004_take_ids_in_blocks.down.sql");

#[tokio::test]
async fn ids_stay_unique_across_block_sizes() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let orders = many_orders();
    let changes = orders.iter().map(|order| change(order, 1)).collect();
    apply(&postgres, changes).await;
    // A worker of an older version takes every id from the sequence.
    let plain = &insert_blank(
        "order_uid, source_timestamp_ms, source_offset, source_partition",
        "gen_random_uuid(), 1, 1, 1",
        "1, 20",
    );
    database.execute(plain).await;
    for statement in SINGLE_IDS.split_inclusive(';') {
        database.execute(statement).await;
    }
    database.execute(plain).await;
    let next = many_orders().into_iter().map(|mut order| {
        order.order_uid = format!("n{}", order.order_uid).into();
        change(&order, 1)
    });
    apply(&postgres, next.collect()).await;
    database.execute(BLOCKS_OF_IDS).await;
    database.execute(plain).await;
    assert_eq!(
        database.value::<i64>("SELECT count(*) FROM orders").await,
        2 * MANY as i64 + 60
    );
}
