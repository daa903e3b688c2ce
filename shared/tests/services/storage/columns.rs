//! Columns that a migration widened: values stored before and after are read unchanged.

use std::time::Duration;

use shared::{
    order::Order,
    storage::{Class, ListFilter, Postgres, Role, StorageError},
    testing::TestDatabase,
};
use sqlx::Connection;

use super::{apply_as_the_worker_does, connect};
use crate::{change, order, revision, uid};

/// Large enough for `COPY`.
const MANY: u64 = 32;

/// Table, column, type, and a wider type.
type Widened = (String, String, String, String);

/// Selects every column of our tables with a wider type. A foreign key cannot be wider than the
/// column that it references, and an identity column must be an integer.
const WIDER: &str = "\
    SELECT table_name::text, column_name::text, \
           CASE udt_name WHEN 'varchar' THEN format('varchar(%s)', character_maximum_length) \
                         ELSE udt_name::text END, wider \
    FROM information_schema.columns \
    JOIN (VALUES ('int2', 'int4'), ('int4', 'int8'), ('int4', 'numeric'), ('int8', 'numeric'), \
                 ('text', 'varchar'), ('varchar', 'text'), ('timestamptz', 'timestamp'), \
                 ('_text', 'varchar[]')) AS w (type, wider) ON udt_name = type \
    WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations' \
      AND column_name <> 'order_id' AND is_identity = 'NO' \
    ORDER BY 1, 2, 4";

/// Returns an order with values so small that a column of another type could read them as other
/// numbers.
fn small(name: &str, seed: u64) -> Order {
    let mut order = order(name, seed);
    let payment = &mut order.payment;
    for value in [
        &mut payment.amount,
        &mut payment.payment_dt,
        &mut payment.delivery_cost,
        &mut payment.goods_total,
        &mut payment.custom_fee,
    ] {
        *value = 1 + *value % 10_000;
    }
    for item in &mut order.items {
        for value in [
            &mut item.chrt_id,
            &mut item.price,
            &mut item.total_price,
            &mut item.nm_id,
        ] {
            *value = 1 + *value % 10_000;
        }
    }
    order
}

/// Repeats a call while its prepared statement is stale.
async fn answer<T>(mut call: impl AsyncFnMut() -> Result<T, StorageError>) -> T {
    loop {
        match call().await {
            Err(error) if error.class() == Class::StalePlan => {}
            answer => return answer.unwrap(),
        }
    }
}

/// Stores new orders, replaces one, and reads them in every way.
async fn store_and_read(writer: &Postgres, reader: &Postgres, name: &str) {
    let orders: Vec<Order> = (0..MANY)
        .map(|n| small(&format!("{name}-{n}"), n))
        .collect();
    let changes = orders.iter().map(|order| change(order, 1)).collect();
    apply_as_the_worker_does(writer, changes).await;
    let mut changed = small(&format!("{name}-0"), 99);
    changed.sm_id = 7;
    apply_as_the_worker_does(writer, vec![change(&changed, 2)]).await;

    let uids: Vec<_> = orders.iter().map(|order| uid(&order.order_uid)).collect();
    let mut found = answer(async || reader.read_many(&uids).await).await;
    found.sort_by_key(|revision| revision.uid);
    let mut expected: Vec<_> = orders[1..].iter().map(|order| revision(order, 1)).collect();
    expected.push(revision(&changed, 2));
    expected.sort_by_key(|revision| revision.uid);
    assert_eq!(found, expected, "{name}");
    let one = answer(async || reader.read(&uids[0]).await).await;
    assert_eq!(one, Some(revision(&changed, 2)), "{name}");
    let newest = answer(async || reader.newest(MANY as u32).await).await;
    assert_eq!(newest.len(), MANY as usize, "{name}");
    let listed = answer(async || reader.list(&ListFilter::default(), 1).await).await;
    let newest = orders
        .iter()
        .find(|order| order.order_uid == listed[0].order_uid);
    assert!(newest.is_some(), "{name}");
    let after = ListFilter {
        customer_id: Some(changed.customer_id.to_string()),
        track_number: Some(changed.track_number.to_string()),
        phone: Some(changed.delivery.phone.to_string()),
        email: Some(changed.delivery.email.to_string()),
        created_from: Some(listed[0].position.created_at),
        created_to: Some(listed[0].position.created_at),
        after: Some(listed[0].position),
    };
    answer(async || reader.list(&after, 1).await).await;
    let documents = answer(async || {
        reader
            .list_documents(&ListFilter::default(), 3, 1 << 20)
            .await
    })
    .await;
    assert_eq!(documents.documents.len(), 3, "{name}");
}

/// Writes and reads the data that workers leave in Postgres for the repair of Redis.
async fn note_and_repair(postgres: &Postgres) {
    answer(async || postgres.mark_for_repair(&[uid("a"), uid("b")]).await).await;
    let marks = answer(async || postgres.repair_marks(None, 10).await).await;
    assert_eq!(marks.len(), 2);
    answer(async || postgres.clear_repair_marks(&marks).await).await;
    answer(async || postgres.repaired_up_to().await).await;
    let writes = answer(async || {
        postgres
            .abandoned_cache_writes(Duration::ZERO, 10_000)
            .await
    })
    .await;
    let writes: Vec<_> = writes.into_iter().map(|(write, _)| write).collect();
    assert!(!writes.is_empty());
    answer(async || postgres.finish_cache_writes(&writes).await).await;
    let (until, servers) = (postgres.now().await.unwrap(), vec!["run-id".to_owned()]);
    answer(async || postgres.remember_complete_cache(until, &servers).await).await;
    let known = answer(async || postgres.cache_knowledge().await).await;
    let complete = known.complete.expect("what was remembered");
    assert_eq!((complete.until, complete.servers), (until, servers));
    let ids = answer(async || postgres.changed_since(shared::DatabaseTime(0), 5).await).await;
    assert_eq!(
        answer(async || postgres.read_ids(&ids).await).await.len(),
        5
    );
}

#[tokio::test]
async fn every_column_may_become_wider_during_writes_and_reads() {
    let database = TestDatabase::migrated().await;
    let mut connection = connect(&database.url).await;
    let columns: Vec<Widened> = sqlx::query_as(WIDER)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    assert!(columns.len() >= 59, "{columns:?}");
    // A pool with statements prepared for the narrow columns.
    let old = database.connect(Role::Worker);
    store_and_read(&old, &old, "before").await;
    for (table, column, narrow, wide) in columns {
        let name = format!("{table}-{column}-{}", wide.trim_end_matches("[]"));
        let alter = async |to: &str| {
            let alter = format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {to}");
            database.execute(&alter).await;
        };
        alter(&wide).await;
        let new = database.connect(Role::Worker);
        store_and_read(&new, &old, &format!("{name}-a")).await;
        store_and_read(&old, &new, &format!("{name}-b")).await;
        note_and_repair(&old).await;
        note_and_repair_again(&new, &old).await;
        new.close().await;
        // Small tables are altered faster.
        database
            .execute("TRUNCATE orders, cache_writes CASCADE")
            .await;
        alter(&narrow).await;
    }
}

/// Repeats [`note_and_repair`] with abandoned cache writes, on statements prepared after the
/// change.
async fn note_and_repair_again(new: &Postgres, old: &Postgres) {
    let changed = small("again", 1);
    let offset = old.now().await.unwrap().0;
    for offset in [offset, offset + 1] {
        apply_as_the_worker_does(old, vec![change(&changed, offset)]).await;
    }
    note_and_repair(new).await;
}
