//! Sequences that are behind their column, as after logical replication or a restore of single
//! tables.

use shared::{
    storage::{CacheWrite, ChangeSet, Postgres, Role},
    testing::TestDatabase,
};

use super::insert_blank;
use crate::{change, order, uid};

/// Large enough for `COPY`.
const MANY: u64 = 50;
/// One id of each block is in use, up to this id.
const GREATEST: i64 = 5_000_001;

/// Creates a database whose sequence of `orders.id` is thousands of blocks behind.
async fn behind() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    let used = insert_blank(
        "id, order_uid, source_timestamp_ms, source_offset, source_partition",
        "n, 'used-' || n, 1, 1, 1",
        &format!("1, {GREATEST}, 1000"),
    );
    database.execute(&used).await;
    database
}

async fn store(postgres: &Postgres, name: &str, count: u64, offset: i64) -> Option<CacheWrite> {
    let orders = (0..count).map(|n| order(&format!("{name}-{n}"), n));
    let (set, _) = ChangeSet::new(orders.map(|order| change(&order, offset)).collect());
    let applied = postgres.apply(&set).await.unwrap();
    assert_eq!(applied.won, vec![true; count as usize], "{name}");
    applied.cache_write
}

#[tokio::test]
async fn orders_are_stored_at_the_first_attempt() {
    for count in [1, MANY] {
        let database = behind().await;
        let postgres = database.connect(Role::Worker);
        store(&postgres, "first", count, 1).await;
        store(&postgres, "second", count, 1).await;
        let next: i64 = database.value("SELECT last_value FROM orders_id_seq").await;
        assert_eq!(next, GREATEST + 1000, "one block for both");
    }
}

#[tokio::test]
async fn concurrent_workers_move_the_sequence_forward_once() {
    const WORKERS: i64 = 6;
    let database = behind().await;
    let stored = (0..WORKERS).map(|worker| {
        let postgres = database.connect(Role::Worker);
        tokio::spawn(async move { store(&postgres, &format!("w{worker}"), MANY, 1).await })
    });
    for stored in stored.collect::<Vec<_>>() {
        stored.await.unwrap();
    }
    let last: i64 = database.value("SELECT last_value FROM orders_id_seq").await;
    let blocks = (last - GREATEST) / 1000;
    assert!((1..=2 * WORKERS).contains(&blocks), "{blocks} blocks");
    let highest: i64 = database.value("SELECT max(id) FROM orders").await;
    assert!(highest < last + 1000, "{highest} was never given out");
}

#[tokio::test]
async fn used_ids_of_the_repair_tables_are_skipped() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    store(&postgres, "u", MANY, 1).await;
    database
        .execute(
            "INSERT INTO cache_writes (id, order_uids) OVERRIDING SYSTEM VALUE \
             SELECT n, '{}' FROM generate_series(1, 70000) n",
        )
        .await;
    database
        .execute(
            "INSERT INTO cache_repairs (mark, order_uid) OVERRIDING SYSTEM VALUE \
             SELECT n, 'u' || n FROM generate_series(1, 70000) n",
        )
        .await;
    // A batch that is too small for `COPY`, and a larger one.
    let few = store(&postgres, "u", 3, 2).await;
    let many = store(&postgres, "u", MANY, 3).await;
    assert!(few.is_some() && many.is_some() && few != many);
    postgres.mark_for_repair(&[uid("new")]).await.unwrap();
    let mark: i64 = database
        .value("SELECT mark FROM cache_repairs WHERE order_uid = 'new'")
        .await;
    assert_eq!(mark, 70_001);
}
