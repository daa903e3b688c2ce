use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use shared::{
    order::{Order, OrderUid, Revision},
    storage::{Change, ChangeSet, Class, DatabaseTime, ListFilter, Postgres, Role, schema},
    testing::TestDatabase,
};
use sqlx::{Connection, PgConnection};

use super::{change, erasure, order, revision, uid, version};

async fn apply(postgres: &Postgres, changes: Vec<Change>) -> Vec<bool> {
    let (set, _) = ChangeSet::new(changes);
    postgres.apply(&set).await.unwrap().won
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn read(postgres: &Postgres, text: &str) -> Option<Revision> {
    postgres.read(&uid(text)).await.unwrap()
}

#[tokio::test]
async fn an_order_comes_back_byte_for_byte() {
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
async fn an_erasure_is_a_version_like_any_other() {
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
    let blank = "SELECT track_number || entry || locale || internal_signature || customer_id || delivery_service \
                 || shard_key || oof_shard || sm_id || date_created::timestamptz(0) AT TIME ZONE 'UTC' FROM orders";
    assert_eq!(
        database.value::<String>(blank).await,
        "01970-01-01 00:00:00"
    );
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
async fn an_erasure_of_an_unknown_order_keeps_older_records_out() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    assert_eq!(apply(&postgres, vec![erasure("u", 7)]).await, [true]);
    assert_eq!(
        apply(&postgres, vec![change(&order("u", 1), 6)]).await,
        [false]
    );
    assert_eq!(read(&postgres, "u").await.unwrap().document, None);
}

/// Whatever the order of arrival, however often, in whatever batches, by two writers at once: the same state. Many orders
/// are copied first, few are updated over and over.
#[tokio::test]
async fn any_order_of_arrival_ends_in_the_same_state() {
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
                uid: change.uid.clone(),
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

/// Two writers that meet may choose one of them as a deadlock's victim, or be told so by a key: that one tries again.
async fn apply_as_the_worker_does(postgres: &Postgres, changes: Vec<Change>) {
    let (set, _) = ChangeSet::new(changes);
    while let Err(error) = postgres.apply(&set).await {
        assert!(
            matches!(error.class(), Class::Transient | Class::Rival),
            "{error}"
        );
    }
}

/// Enough for `COPY`.
const MANY: u64 = 100;

fn many_orders() -> Vec<Order> {
    (0..MANY).map(|n| order(&format!("u{n}"), n)).collect()
}

#[tokio::test]
async fn what_another_writer_stored_during_the_copy_is_judged_by_its_version() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let orders = many_orders();
    let offset_of_rival = MANY as i64 / 2;
    // Commits only when the copy waits for it.
    let mut rival = connect(&database.url).await;
    let mut transaction = rival.begin().await.unwrap();
    let insert = format!(
        "INSERT INTO orders (order_uid, track_number, entry, locale, internal_signature, customer_id, delivery_service, \
                             shard_key, sm_id, date_created, oof_shard, source_timestamp_ms, source_offset, source_partition) \
         SELECT 'u' || n, '', '', '', '', '', '', '', 1, now(), '', {}, {offset_of_rival}, 0 FROM generate_series(10, 90, 10) n",
        version(0).timestamp_ms
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
            .value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'COPY orders%'")
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

#[tokio::test]
async fn a_row_that_the_database_refuses_in_a_copy_refuses_its_batch_and_says_why() {
    let database = TestDatabase::migrated().await;
    database
        .execute("ALTER TABLE items ADD CONSTRAINT no_poison CHECK (name <> 'poison')")
        .await;
    let postgres = database.connect(Role::Worker);
    let mut orders = many_orders();
    orders[50].items[0].name = "poison".to_owned();
    let changes = || orders.iter().map(|order| change(order, 1));
    let (set, _) = ChangeSet::new(changes().collect());
    let error = postgres.apply(&set).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Postgres: SQLSTATE 23514, constraint no_poison"
    );
    assert_eq!(error.class(), Class::Record);
    assert_eq!(read(&postgres, "u0").await, None);
    orders[50].items[0].name = "harmless".to_owned();
    let changes = orders.iter().map(|order| change(order, 1)).collect();
    assert_eq!(apply(&postgres, changes).await, [true; MANY as usize]);
}

#[tokio::test]
async fn a_sequence_that_a_failover_took_back_stops_nobody() {
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
    // Small batches are upserted at once, large ones after a copy that fails; neither steps through the rival's ids.
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
async fn a_column_that_a_later_migration_made_wider_is_still_written() {
    let database = TestDatabase::migrated().await;
    database
        .execute("ALTER TABLE items ALTER COLUMN sale TYPE BIGINT")
        .await;
    let postgres = database.connect(Role::Worker);
    let changes = many_orders().iter().map(|order| change(order, 1)).collect();
    assert_eq!(apply(&postgres, changes).await, [true; MANY as usize]);
}

#[tokio::test]
async fn ids_stay_unique_when_blocks_come_and_go() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let orders = many_orders();
    let changes = orders.iter().map(|order| change(order, 1)).collect();
    apply(&postgres, changes).await;
    // An older version takes every id from the sequence.
    let plain = "INSERT INTO orders (order_uid, track_number, entry, locale, internal_signature, customer_id, delivery_service, \
                                     shard_key, sm_id, date_created, oof_shard, source_timestamp_ms, source_offset, source_partition) \
                 SELECT gen_random_uuid()::text, '', '', '', '', '', '', '', 1, now(), '', 1, 1, 1 FROM generate_series(1, 20)";
    database.execute(plain).await;
    schema::migrate_down(&database.url, 1).await.unwrap();
    database.execute(plain).await;
    let next = many_orders().into_iter().map(|mut order| {
        order.order_uid.insert(0, 'n');
        change(&order, 1)
    });
    apply(&postgres, next.collect()).await;
    schema::migrate(&database.url).await.unwrap();
    database.execute(plain).await;
    assert_eq!(
        database.value::<i64>("SELECT count(*) FROM orders").await,
        2 * MANY as i64 + 60
    );
}

#[tokio::test]
async fn a_row_that_the_database_refuses_refuses_its_batch_and_says_why() {
    let database = TestDatabase::migrated().await;
    database
        .execute("ALTER TABLE orders ADD CONSTRAINT no_poison CHECK (customer_id <> 'poison')")
        .await;
    let postgres = database.connect(Role::Worker);
    let mut poison = order("bad", 1);
    poison.customer_id = "poison".to_owned();
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
async fn a_statement_that_waits_for_a_lock_ends_as_locked() {
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
            .value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'")
            .await;
        (locks == 1).then_some(())
    })
    .await;
    // Reads are not held up by the lock.
    assert!(blocker.read(&uid("u")).await.unwrap().is_some());
    let (set, _) = ChangeSet::new(vec![change(&order("u", 2), 2)]);
    let class = postgres.apply(&set).await.unwrap_err().class();
    assert_eq!(class, Class::Locked);
    holding.abort();
}

#[tokio::test]
async fn lists_are_newest_first_filtered_and_paged() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Api);
    for n in 0..7 {
        let mut order = order(&format!("u{n}"), n);
        order.customer_id = if n % 2 == 0 { "even" } else { "odd" }.to_owned();
        apply(&postgres, vec![change(&order, n as i64)]).await;
    }
    let mut filter = ListFilter::default();
    let mut seen = Vec::new();
    loop {
        let page = postgres.list(&filter, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some(last.position);
        seen.extend(page.into_iter().map(|summary| summary.order_uid));
    }
    assert_eq!(seen, ["u6", "u5", "u4", "u3", "u2", "u1", "u0"]);
    let even = ListFilter {
        customer_id: Some("even".to_owned()),
        ..ListFilter::default()
    };
    assert_eq!(postgres.list(&even, 100).await.unwrap().len(), 4);
    let by_track = ListFilter {
        track_number: Some(order("u3", 3).track_number),
        ..ListFilter::default()
    };
    let found = postgres.list(&by_track, 100).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].item_count, order("u3", 3).items.len() as i64);
    let newest = postgres.newest(2).await.unwrap();
    assert_eq!(
        newest
            .iter()
            .map(|revision| revision.uid.as_str())
            .collect::<Vec<_>>(),
        ["u6", "u5"]
    );
}

#[tokio::test]
async fn a_mark_that_is_set_anew_survives_the_repair_of_the_old_one() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let before = postgres.now().await.unwrap();
    assert_eq!(postgres.oldest_repair_mark().await.unwrap(), Duration::ZERO);
    postgres
        .mark_for_repair(&[uid("a"), uid("b"), uid("a")])
        .await
        .unwrap();
    assert!(postgres.oldest_repair_mark().await.unwrap() > Duration::ZERO);
    let marks = postgres.repair_marks(None, 10).await.unwrap();
    assert_eq!(marks.len(), 2);
    assert!(
        !postgres
            .repairs_are_overdue(Duration::from_secs(600))
            .await
            .unwrap()
    );
    assert!(postgres.repairs_are_overdue(Duration::ZERO).await.unwrap());
    assert!(postgres.repaired_up_to().await.unwrap() >= before);
    let held = postgres.repaired_up_to().await.unwrap();

    postgres.mark_for_repair(&[uid("b")]).await.unwrap();
    postgres.clear_repair_marks(&marks).await.unwrap();
    let left = postgres.repair_marks(None, 10).await.unwrap();
    assert_eq!(
        left.iter()
            .map(|mark| mark.uid.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
    // The watermark waits for the oldest mark.
    assert_eq!(postgres.repaired_up_to().await.unwrap(), held);
    postgres.clear_repair_marks(&left).await.unwrap();
    assert!(postgres.repaired_up_to().await.unwrap() > held);
}

#[tokio::test]
async fn what_changed_since_a_moment_is_found() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    apply(
        &postgres,
        vec![change(&order("old", 1), 1), change(&order("updated", 2), 2)],
    )
    .await;
    let moment = postgres.now().await.unwrap();
    apply(
        &postgres,
        vec![change(&order("updated", 3), 3), change(&order("new", 4), 4)],
    )
    .await;
    let ids = postgres.changed_since(moment, 10).await.unwrap();
    let mut uids: Vec<String> = postgres
        .read_ids(&ids)
        .await
        .unwrap()
        .iter()
        .map(|revision| revision.uid.to_string())
        .collect();
    uids.sort();
    assert_eq!(uids, ["new", "updated"]);
    assert_eq!(
        postgres
            .changed_since(DatabaseTime(0), 2)
            .await
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn migrations_go_down_and_up_again() {
    let database = TestDatabase::empty().await;
    let postgres = database.connect(Role::Api);
    let newest = schema::required_version();
    assert_eq!(postgres.schema_version().await.unwrap(), 0);
    let migrated = schema::migrate(&database.url).await.unwrap();
    assert_eq!((migrated.from, migrated.to), (0, newest));
    for step in 1..=newest {
        let undone = schema::migrate_down(&database.url, 1).await.unwrap();
        assert_eq!(undone.to, newest - step);
    }
    let left: i64 = database
        .value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE '_sqlx%'")
        .await;
    assert_eq!(left, 0, "the down files leave nothing behind");
    schema::migrate(&database.url).await.unwrap();
    assert_eq!(schema::migrate_down(&database.url, 99).await.unwrap().to, 0);
    schema::migrate(&database.url).await.unwrap();
    assert_eq!(postgres.schema_version().await.unwrap(), newest);
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let database = TestDatabase::migrated().await;
    let newer = schema::required_version() + 1;
    database
        .execute(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES ({newer}, 'later', true, '', 0)"
        ))
        .await;
    let migrated = schema::migrate(&database.url).await.unwrap();
    assert_eq!((migrated.from, migrated.to), (newer, newer));
    assert!(schema::migrate_down(&database.url, 1).await.is_err());
}
