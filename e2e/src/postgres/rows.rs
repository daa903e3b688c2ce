//! Orders as read from their four tables.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::order::Version;
use sqlx::{Row as _, postgres::PgRow};

/// An order assembled from its four tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `orders.id`.
    pub id: i64,
    /// Version.
    pub version: Version,
    /// The order in the shape of its JSON, with the time in microseconds since 1970. `None` without
    /// rows in the other tables.
    pub document: Option<Value>,
    /// The columns of `orders` that hold content of an order, also if the order is erased.
    pub columns: Value,
    /// Number of rows in the other tables.
    pub children: i64,
    /// Whether `erased_at` is set.
    pub erased: bool,
    /// `created_at`, in microseconds since 1970.
    pub created_at: i64,
    /// `updated_at`, in microseconds since 1970.
    pub updated_at: i64,
}

/// The columns have the names of the JSON fields, except `shard_key`. A null column is an absent
/// field.
pub(super) const ORDERS: &str = "\
    SELECT o.order_uid, o.id, o.source_timestamp_ms, o.source_offset, o.source_partition, \
           o.erased_at IS NOT NULL AS erased, \
           (extract(epoch FROM o.created_at) * 1000000)::bigint AS created_at, \
           (extract(epoch FROM o.updated_at) * 1000000)::bigint AS updated_at, \
           (SELECT count(*) FROM deliveries WHERE order_id = o.id) \
             + (SELECT count(*) FROM payments WHERE order_id = o.id) \
             + (SELECT count(*) FROM items WHERE order_id = o.id) AS children, \
           columns::text, \
           (columns || jsonb_build_object( \
               'order_uid', o.order_uid, \
               'delivery', (SELECT jsonb_strip_nulls(to_jsonb(d) - 'order_id') \
               FROM deliveries d WHERE d.order_id = o.id), \
               'payment', (SELECT jsonb_strip_nulls(to_jsonb(p) - 'order_id') \
               FROM payments p WHERE p.order_id = o.id), \
               'items', (SELECT jsonb_agg(jsonb_strip_nulls(to_jsonb(i) - 'order_id' - 'line_no') \
               ORDER BY i.line_no) \
                         FROM items i WHERE i.order_id = o.id)))::text AS document \
    FROM orders o CROSS JOIN LATERAL jsonb_strip_nulls( \
        to_jsonb(o) - ARRAY['id', 'order_uid', 'shard_key', 'source_timestamp_ms', \
        'source_offset', \
                            'source_partition', 'representation', 'erased_at', 'created_at', \
                            'updated_at'] \
        || jsonb_build_object('shardkey', o.shard_key, \
                              'date_created', (extract(epoch \
                              FROM o.date_created) * 1000000)::bigint)) AS columns";

#[track_caller]
pub(super) fn rows_of(answer: Result<Vec<PgRow>, sqlx::Error>) -> BTreeMap<String, Row> {
    answer
        .and_then(|rows| rows.iter().map(row_of).collect())
        .unwrap_or_else(|error| panic!("reading orders: {error}"))
}

fn row_of(row: &PgRow) -> Result<(String, Row), sqlx::Error> {
    let json = |column| -> Result<Value, sqlx::Error> {
        let text: &str = row.try_get(column)?;
        Ok(serde_json::from_str(text).expect("Postgres writes JSON"))
    };
    let children: i64 = row.try_get("children")?;
    let document = match children {
        0 => None,
        _ => Some(json("document")?),
    };
    let found = Row {
        id: row.try_get("id")?,
        version: Version {
            timestamp_ms: row.try_get("source_timestamp_ms")?,
            offset: row.try_get("source_offset")?,
            partition: row.try_get("source_partition")?,
        },
        document,
        columns: json("columns")?,
        children,
        erased: row.try_get("erased")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    };
    Ok((row.try_get("order_uid")?, found))
}
