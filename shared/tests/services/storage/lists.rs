//! Which rows a list reads. Counted by Postgres, so the numbers are the same on every machine.

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    config,
    storage::{ListFilter, Position, Postgres, Role},
    testing::TestDatabase,
};

/// Number of orders. Each was stored a second after the one before.
const ORDERS: i64 = 60_000;
/// Phone of every second order.
const DENSE: &str = "+9720000000";
/// E-mail address of the oldest orders, and how many they are.
const OLD: (&str, i64) = ("old@example.com", 10_000);
/// A list runs so often that Postgres may choose a plan that ignores the parameters.
const TIMES: i64 = 6;

/// The orders have no statistics, as after a bulk load.
const LOAD: [&str; 5] = [
    "ALTER TABLE orders SET (autovacuum_enabled = off)",
    "ALTER TABLE deliveries SET (autovacuum_enabled = off)",
    "INSERT INTO orders (id, order_uid, track_number, entry, locale, internal_signature, \
         customer_id, delivery_service, shard_key, sm_id, date_created, oof_shard, \
         source_timestamp_ms, source_offset, source_partition, created_at) \
     SELECT n, 'u' || n, 't' || n % 20000, 'e', 'en', '', 'c' || n % 20000, 'd', '1', 1, now(), \
            '1', n, n, 0, timestamptz '2026-01-01' + n * interval '1 s' \
     FROM generate_series(1, 60000) n",
    "INSERT INTO deliveries (order_id, name, phone, zip, city, address, region, email) \
     SELECT n, 'n', CASE n % 2 WHEN 0 THEN '+9720000000' ELSE '+1' || n END, 'z', 'c', 'a', 'r', \
            CASE WHEN n <= 10000 THEN 'old@example.com' ELSE n || '@example.com' END \
     FROM generate_series(1, 60000) n",
    "INSERT INTO payments (order_id, transaction, request_id, currency, provider, amount, \
         payment_dt, bank, delivery_cost, goods_total, custom_fee) \
     SELECT n, 't', '', 'USD', 'p', 1, 1, 'b', 1, 1, 1 FROM generate_series(1, 60000) n",
];

async fn loaded() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    for statement in LOAD {
        database.execute(statement).await;
    }
    let item = "INSERT INTO items (order_id, line_no, chrt_id, track_number, price, rid, name, \
                    sale, size, total_price, nm_id, brand, status) \
                SELECT n, 0, 1, 't', 1, 'r', 'n', 0, 's', 1, 1, 'b', 1 \
                FROM generate_series(1, 60000) n";
    database.execute(item).await;
    database
}

fn stored_at(n: i64) -> DateTime<Utc> {
    let start = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap();
    start.to_utc() + TimeDelta::seconds(n)
}

fn after(n: i64) -> Option<Position> {
    Some(Position {
        created_at: stored_at(n),
        id: n,
    })
}

/// What the lists of `filter` read.
#[derive(Debug)]
struct Reads {
    /// Rows and index entries of `orders` and `deliveries`, for one list.
    entries: i64,
    /// Scans of a whole table.
    scans: i64,
    /// The indexes that were used.
    indexes: String,
}

/// Lists `filter` in both forms. Returns the ids of the first page, and what a list reads.
async fn list(database: &TestDatabase, filter: &ListFilter) -> (Vec<i64>, [Reads; 2]) {
    let mut ids = Vec::new();
    let summaries = count_reads(database, async |postgres| {
        let page = postgres.list(filter, 20).await.unwrap();
        ids = page.iter().map(|summary| summary.position.id).collect();
    })
    .await;
    let documents = count_reads(database, async |postgres| {
        let page = postgres.list_documents(filter, 20, 1 << 20).await.unwrap();
        let uids = page.documents.iter().map(|document| {
            let document: serde_json::Value = serde_json::from_slice(document).unwrap();
            document["order_uid"].as_str().unwrap()[1..]
                .parse()
                .unwrap()
        });
        assert_eq!(uids.collect::<Vec<i64>>(), ids);
    })
    .await;
    (ids, [summaries, documents])
}

async fn count_reads(database: &TestDatabase, mut list: impl AsyncFnMut(&Postgres)) -> Reads {
    // Otherwise an earlier session may report after the reset.
    others_have_ended(database).await;
    database.execute("SELECT pg_stat_reset()").await;
    // One connection, because each counts the uses of a statement.
    let config = config::Database {
        max_connections: 1,
        timeout: Some(std::time::Duration::from_secs(10)),
        ..config::Database::default()
    };
    let postgres = Postgres::new(&database.url, &config, Role::Api).unwrap();
    for _ in 0..TIMES {
        list(&postgres).await;
    }
    postgres.close().await;
    others_have_ended(database).await;
    let of_lists = "relname IN ('orders', 'deliveries', 'payments')";
    let indexes = format!("pg_stat_user_indexes WHERE {of_lists} AND idx_scan > 0");
    let tables = format!("pg_stat_user_tables WHERE {of_lists}");
    let sum = async |what: &str, of: &str| {
        let sum = format!("SELECT coalesce(sum({what}), 0)::int8 FROM {of}");
        database.value::<i64>(&sum).await
    };
    let names = format!("SELECT coalesce(string_agg(indexrelname, ' '), '') FROM {indexes}");
    let entries = sum("idx_tup_read", &indexes).await + sum("seq_tup_read", &tables).await;
    Reads {
        entries: entries / TIMES,
        scans: sum("seq_scan", &tables).await,
        indexes: database.value(&names).await,
    }
}

/// Waits until the other sessions of the database have ended. A session that lasts longer than a
/// second may report a part of what it read, and the rest when it ends.
async fn others_have_ended(database: &TestDatabase) {
    shared::testing::eventually("the end of the other sessions", async || {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        (database.value::<i64>(others).await == 0).then_some(())
    })
    .await;
}

/// Filter, expected ids, index, and how many entries a list may read.
type Case = (ListFilter, Vec<i64>, &'static str, i64);

/// Entries that a page of 20 orders may read.
const PAGE: i64 = 200;

fn by(set: impl FnOnce(&mut ListFilter)) -> ListFilter {
    let mut filter = ListFilter::default();
    set(&mut filter);
    filter
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The ids of a full page that begins with `from`.
fn newest(from: i64, step: i64) -> Vec<i64> {
    (0..20).map(|n| from - n * step).collect()
}

fn selective_cases() -> Vec<Case> {
    let customer = by(|it| it.customer_id = text("c7"));
    let track_number = by(|it| it.track_number = text("t7"));
    let until = by(|it| it.created_to = Some(stored_at(30_000)));
    let period = by(|it| {
        it.created_from = Some(stored_at(100));
        it.created_to = Some(stored_at(103));
    });
    let phone = by(|it| it.phone = text("+130001"));
    let email = by(|it| it.email = text("30001@example.com"));
    let unused_phone = by(|it| it.phone = text("+7"));
    let both = by(|it| {
        it.customer_id = text("c7");
        it.track_number = text("t7");
    });
    let neither = by(|it| {
        it.customer_id = text("c7");
        it.track_number = text("t8");
    });
    let three = vec![40_007, 20_007, 7];
    vec![
        (by(|_| ()), newest(ORDERS, 1), "idx_orders_newest", PAGE),
        (customer, three.clone(), "idx_orders_customer", PAGE),
        (track_number, three.clone(), "idx_orders_track_number", PAGE),
        (both, three, "track_number", PAGE),
        (neither, vec![], "track_number", PAGE),
        (until, newest(29_999, 1), "idx_orders_newest", PAGE),
        (period, vec![102, 101, 100], "idx_orders_newest", PAGE),
        (phone, vec![30_001], "idx_deliveries_phone", PAGE),
        (email, vec![30_001], "idx_deliveries_email", PAGE),
        (unused_phone, vec![], "idx_deliveries_phone", PAGE),
    ]
}

/// More than 5000 orders have these contacts. Counting them takes 5001 entries.
fn frequent_cases() -> Vec<Case> {
    let counted = 5_001 + PAGE;
    let dense = by(|it| it.phone = text(DENSE));
    let second_page = by(|it| {
        it.phone = text(DENSE);
        it.after = after(20_001);
    });
    let customer = by(|it| {
        it.phone = text(DENSE);
        it.customer_id = text("c8");
    });
    // All newer orders have another address: they are searched first, then these are sorted.
    let old = by(|it| it.email = text(OLD.0));
    let searched = 2 * 50_000 + 2 * OLD.1;
    vec![
        (dense, newest(ORDERS, 2), "idx_deliveries_phone", counted),
        (
            second_page,
            newest(20_000, 2),
            "idx_deliveries_phone",
            counted,
        ),
        (
            customer,
            vec![40_008, 20_008, 8],
            "idx_deliveries_phone",
            counted,
        ),
        (
            old,
            newest(OLD.1, 1),
            "idx_deliveries_email",
            counted + searched,
        ),
    ]
}

/// A frequent contact with another filter.
fn pair_cases() -> Vec<Case> {
    let counted = 5_001 + PAGE;
    let searched = 2 * 50_000 + 2 * OLD.1;
    let rare_email = by(|it| {
        it.phone = text(DENSE);
        it.email = text("30000@example.com");
    });
    let rare_customer = by(|it| {
        it.email = text(OLD.0);
        it.customer_id = text("c7");
    });
    let short = by(|it| {
        it.phone = text(DENSE);
        it.created_from = Some(stored_at(59_991));
    });
    let both = by(|it| {
        it.phone = text(DENSE);
        it.email = text(OLD.0);
    });
    vec![
        (rare_email, vec![30_000], "idx_deliveries_email", counted),
        (rare_customer, vec![7], "idx_orders_customer", counted),
        (
            short,
            vec![60_000, 59_998, 59_996, 59_994, 59_992],
            "idx_orders_newest",
            counted,
        ),
        (
            both,
            newest(OLD.1, 2),
            "idx_deliveries_email",
            2 * counted + searched,
        ),
    ]
}

#[tokio::test]
async fn a_list_reads_few_rows_with_and_without_statistics() {
    let database = loaded().await;
    for statistics in [false, true] {
        if statistics {
            database.execute("ANALYZE").await;
        }
        let cases = [selective_cases(), frequent_cases(), pair_cases()];
        for (filter, expected, index, maximum) in cases.into_iter().flatten() {
            let of = format!(
                "{:?}, statistics: {statistics}",
                (
                    &filter.phone,
                    &filter.email,
                    &filter.customer_id,
                    filter.after
                )
            );
            let (ids, reads) = list(&database, &filter).await;
            assert_eq!(ids, expected, "{of}");
            for reads in reads {
                assert_eq!(reads.scans, 0, "{of}: {reads:?}");
                assert!(reads.indexes.contains(index), "{of}: {reads:?}");
                assert!(reads.entries <= maximum, "{of}: {reads:?}");
            }
        }
    }
}

/// A customer and a track number that many orders have, and no order both.
#[tokio::test]
async fn two_frequent_filters_read_no_order_that_matches_one_of_them() {
    let database = loaded().await;
    database
        .execute(
            "UPDATE orders SET customer_id = CASE WHEN id <= 30000 THEN 'whale' ELSE 'c' END, \
                 track_number = CASE WHEN id > 30000 THEN 'popular' ELSE 't' END",
        )
        .await;
    // Otherwise index entries of the old rows would count.
    database.execute("VACUUM orders").await;
    let filter = by(|it| {
        it.customer_id = text("whale");
        it.track_number = text("popular");
    });
    for statistics in [false, true] {
        if statistics {
            database.execute("ANALYZE").await;
        }
        let (ids, reads) = list(&database, &filter).await;
        assert_eq!(ids, Vec::<i64>::new());
        for reads in reads {
            assert_eq!(reads.scans, 0, "{reads:?}");
            // Counting the orders with the track number takes 5001 entries.
            let maximum = 5_001 + PAGE;
            assert!(
                reads.entries <= maximum,
                "statistics: {statistics}, {reads:?}"
            );
        }
    }
}

#[tokio::test]
async fn pages_of_documents_end_at_the_number_of_bytes_and_miss_no_order() {
    let database = loaded().await;
    let postgres = database.connect(Role::Api);
    let mut filter = ListFilter {
        created_to: Some(stored_at(300)),
        ..ListFilter::default()
    };
    let (mut uids, mut pages) = (Vec::new(), 0);
    loop {
        let page = postgres.list_documents(&filter, 100, 4096).await.unwrap();
        assert!(
            (1..50).contains(&page.documents.len()),
            "{}",
            page.documents.len()
        );
        pages += 1;
        uids.extend(page.documents.iter().map(|document| {
            let document: serde_json::Value = serde_json::from_slice(document).unwrap();
            document["order_uid"].as_str().unwrap().to_owned()
        }));
        let Some(next) = page.next else { break };
        filter.after = Some(next);
    }
    assert!(pages > 10, "{pages}");
    let expected: Vec<_> = (1..300).rev().map(|n| format!("u{n}")).collect();
    assert_eq!(uids, expected);
}
