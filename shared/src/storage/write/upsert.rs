//! Upserts orders of any kind (known, new or erased) if they are the newest version.

use sqlx::{PgConnection, Row};

use super::{CacheWrite, Candidate};
use crate::{
    fault::Moment,
    order::{Item, Order},
};

/// The upsert of `orders` alone. The children follow in later statements, so that each statement
/// sees what was committed while the transaction waited for its locks. One statement for all four
/// tables has a snapshot older than the lock that it waits for, and leaves duplicate children
/// behind.
///
/// `now()` is the start of a transaction, which may be earlier than the start of the transaction
/// that it waited for. So `updated_at` never goes back: no row changes before it was created.
const UPSERT_ORDERS: &str = "\
    INSERT INTO orders (id, order_uid, track_number, entry, locale, internal_signature, customer_id, delivery_service, \
                        shard_key, sm_id, date_created, oof_shard, \
                        source_timestamp_ms, source_offset, source_partition, erased_at) \
    SELECT u.id, u.order_uid, u.track_number, u.entry, u.locale, u.internal_signature, u.customer_id, u.delivery_service, \
           u.shard_key, u.sm_id, u.date_created, u.oof_shard, u.timestamp_ms, u.record_offset, u.partition, \
           CASE WHEN u.erased THEN now() END \
    FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
                $9::text[], $10::int4[], $11::timestamptz[], $12::text[], $13::int8[], $14::int8[], $15::int4[], \
                $16::bool[]) \
         AS u (id, order_uid, track_number, entry, locale, internal_signature, customer_id, delivery_service, \
               shard_key, sm_id, date_created, oof_shard, timestamp_ms, record_offset, partition, erased) \
    ON CONFLICT (order_uid) DO UPDATE SET \
        track_number = EXCLUDED.track_number, entry = EXCLUDED.entry, locale = EXCLUDED.locale, \
        internal_signature = EXCLUDED.internal_signature, customer_id = EXCLUDED.customer_id, \
        delivery_service = EXCLUDED.delivery_service, shard_key = EXCLUDED.shard_key, sm_id = EXCLUDED.sm_id, \
        date_created = EXCLUDED.date_created, oof_shard = EXCLUDED.oof_shard, \
        source_timestamp_ms = EXCLUDED.source_timestamp_ms, source_offset = EXCLUDED.source_offset, \
        source_partition = EXCLUDED.source_partition, erased_at = EXCLUDED.erased_at, \
        updated_at = greatest(now(), orders.updated_at) \
    WHERE (orders.source_timestamp_ms, orders.source_offset, orders.source_partition) \
        < (EXCLUDED.source_timestamp_ms, EXCLUDED.source_offset, EXCLUDED.source_partition) \
    RETURNING order_uid::text, orders.id::int8, xmax <> 0 AS replaced";

/// Deletes the children of orders that were replaced, and notes that Redis still holds the old
/// versions.
const REPLACE: &str = "\
    WITH delivery AS (DELETE FROM deliveries WHERE order_id = ANY($1)), \
         payment AS (DELETE FROM payments WHERE order_id = ANY($1)), \
         item AS (DELETE FROM items WHERE order_id = ANY($1)) \
    INSERT INTO cache_writes (order_uids) VALUES ($2) RETURNING id::int8";

const INSERT_DELIVERIES: &str = "\
    INSERT INTO deliveries (order_id, name, phone, zip, city, address, region, email) \
    SELECT * FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])";

const INSERT_PAYMENTS: &str = "\
    INSERT INTO payments (order_id, transaction, request_id, currency, provider, amount, payment_dt, bank, \
                          delivery_cost, goods_total, custom_fee) \
    SELECT * FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::int8[], $8::text[], \
                         $9::int8[], $10::int8[], $11::int8[])";

const INSERT_ITEMS: &str = "\
    INSERT INTO items (order_id, line_no, chrt_id, track_number, price, rid, name, sale, size, total_price, nm_id, brand, \
                       status) \
    SELECT * FROM unnest($1::int8[], $2::int4[], $3::int8[], $4::text[], $5::int8[], $6::text[], $7::text[], $8::int4[], \
                         $9::text[], $10::int8[], $11::int8[], $12::text[], $13::int4[])";

/// The result of an upsert.
#[derive(Default)]
pub(super) struct Upserted {
    /// Whether each candidate is the newest version now.
    pub(super) won: Vec<bool>,
    /// The note of the orders that replaced a row; none if no order did.
    pub(super) cache_write: Option<CacheWrite>,
}

/// Upserts `candidates`, which are sorted by uid.
pub(super) async fn upsert(
    connection: &mut PgConnection,
    candidates: &[Candidate<'_>],
) -> Result<Upserted, sqlx::Error> {
    let winners = upsert_orders(connection, candidates).await?;
    let won = winners.iter().map(Option::is_some).collect();
    Moment::AfterUpsert.pass();
    let replaced = candidates.iter().zip(&winners);
    let (ids, uids): (Vec<i64>, Vec<&str>) = replaced
        .filter_map(|(candidate, winner)| {
            let winner = winner.as_ref().filter(|winner| winner.replaced)?;
            Some((winner.id, candidate.change.uid.as_str()))
        })
        .unzip();
    let cache_write = match ids.is_empty() {
        true => None,
        false => {
            let replace = sqlx::query_scalar(REPLACE).bind(ids).bind(uids);
            Some(CacheWrite(replace.fetch_one(&mut *connection).await?))
        }
    };
    let orders: Vec<(i64, &Order)> = candidates
        .iter()
        .zip(&winners)
        .filter_map(|(candidate, winner)| {
            Some((winner.as_ref()?.id, candidate.change.order.as_deref()?))
        })
        .collect();
    if !orders.is_empty() {
        insert_deliveries(connection, &orders).await?;
        insert_payments(connection, &orders).await?;
        insert_items(connection, &orders).await?;
    }
    Ok(Upserted { won, cache_write })
}

struct Winner {
    id: i64,
    /// Whether the row already existed, so that it may have children, and an entry in Redis.
    replaced: bool,
}

/// Upserts the rows of `orders`. Returns the row that each candidate won, or none if the stored
/// version is not older.
async fn upsert_orders(
    connection: &mut PgConnection,
    candidates: &[Candidate<'_>],
) -> Result<Vec<Option<Winner>>, sqlx::Error> {
    let changes = || candidates.iter().map(|candidate| candidate.change);
    let orders = || changes().map(|change| change.order.as_deref());
    let text = |field: fn(&Order) -> &str| -> Vec<&str> {
        orders().map(|order| order.map_or("", field)).collect()
    };
    let ids: Vec<i64> = candidates.iter().map(|candidate| candidate.id).collect();
    let uids: Vec<&str> = changes().map(|change| change.uid.as_str()).collect();
    let sm_ids: Vec<i32> = orders()
        .map(|order| order.map_or(0, |order| order.sm_id))
        .collect();
    let dates: Vec<_> = orders()
        .map(|order| order.map(|order| order.date_created).unwrap_or_default())
        .collect();
    let timestamps: Vec<i64> = changes()
        .map(|change| change.version.timestamp_ms)
        .collect();
    let offsets: Vec<i64> = changes().map(|change| change.version.offset).collect();
    let partitions: Vec<i32> = changes().map(|change| change.version.partition).collect();
    let erased: Vec<bool> = changes().map(|change| change.order.is_none()).collect();

    let rows = sqlx::query(UPSERT_ORDERS)
        .bind(ids)
        .bind(uids)
        .bind(text(|order| &order.track_number))
        .bind(text(|order| &order.entry))
        .bind(text(|order| &order.locale))
        .bind(text(|order| &order.internal_signature))
        .bind(text(|order| &order.customer_id))
        .bind(text(|order| &order.delivery_service))
        .bind(text(|order| &order.shardkey))
        .bind(sm_ids)
        .bind(dates)
        .bind(text(|order| &order.oof_shard))
        .bind(timestamps)
        .bind(offsets)
        .bind(partitions)
        .bind(erased)
        .fetch_all(connection)
        .await?;

    let mut winners: Vec<Option<Winner>> = candidates.iter().map(|_| None).collect();
    for row in &rows {
        let uid: &str = row.try_get("order_uid")?;
        let index = candidates
            .binary_search_by(|candidate| candidate.change.uid.as_str().cmp(uid))
            .map_err(|_| {
                sqlx::Error::Protocol("Postgres returned a row that was not asked for".to_owned())
            })?;
        winners[index] = Some(Winner {
            id: row.try_get("id")?,
            replaced: row.try_get("replaced")?,
        });
    }
    Ok(winners)
}

async fn insert_deliveries(
    connection: &mut PgConnection,
    orders: &[(i64, &Order)],
) -> Result<(), sqlx::Error> {
    let text = |field: fn(&Order) -> &str| -> Vec<&str> {
        orders.iter().map(|(_, order)| field(order)).collect()
    };
    sqlx::query(INSERT_DELIVERIES)
        .bind(ids(orders))
        .bind(text(|order| &order.delivery.name))
        .bind(text(|order| &order.delivery.phone))
        .bind(text(|order| &order.delivery.zip))
        .bind(text(|order| &order.delivery.city))
        .bind(text(|order| &order.delivery.address))
        .bind(text(|order| &order.delivery.region))
        .bind(text(|order| &order.delivery.email))
        .execute(connection)
        .await
        .map(drop)
}

async fn insert_payments(
    connection: &mut PgConnection,
    orders: &[(i64, &Order)],
) -> Result<(), sqlx::Error> {
    let text = |field: fn(&Order) -> &str| -> Vec<&str> {
        orders.iter().map(|(_, order)| field(order)).collect()
    };
    let number = |field: fn(&Order) -> i64| -> Vec<i64> {
        orders.iter().map(|(_, order)| field(order)).collect()
    };
    sqlx::query(INSERT_PAYMENTS)
        .bind(ids(orders))
        .bind(text(|order| &order.payment.transaction))
        .bind(text(|order| &order.payment.request_id))
        .bind(text(|order| &order.payment.currency))
        .bind(text(|order| &order.payment.provider))
        .bind(number(|order| order.payment.amount))
        .bind(number(|order| order.payment.payment_dt))
        .bind(text(|order| &order.payment.bank))
        .bind(number(|order| order.payment.delivery_cost))
        .bind(number(|order| order.payment.goods_total))
        .bind(number(|order| order.payment.custom_fee))
        .execute(connection)
        .await
        .map(drop)
}

async fn insert_items(
    connection: &mut PgConnection,
    orders: &[(i64, &Order)],
) -> Result<(), sqlx::Error> {
    let lines: Vec<(i64, i32, &Item)> = orders
        .iter()
        .flat_map(|(id, order)| {
            (0_i32..)
                .zip(&order.items)
                .map(move |(line_no, item)| (*id, line_no, item))
        })
        .collect();
    let text = |field: fn(&Item) -> &str| -> Vec<&str> {
        lines.iter().map(|(_, _, item)| field(item)).collect()
    };
    let long = |field: fn(&Item) -> i64| -> Vec<i64> {
        lines.iter().map(|(_, _, item)| field(item)).collect()
    };
    let short = |field: fn(&Item) -> i32| -> Vec<i32> {
        lines.iter().map(|(_, _, item)| field(item)).collect()
    };
    sqlx::query(INSERT_ITEMS)
        .bind(lines.iter().map(|(id, _, _)| *id).collect::<Vec<i64>>())
        .bind(
            lines
                .iter()
                .map(|(_, line_no, _)| *line_no)
                .collect::<Vec<i32>>(),
        )
        .bind(long(|item| item.chrt_id))
        .bind(text(|item| &item.track_number))
        .bind(long(|item| item.price))
        .bind(text(|item| &item.rid))
        .bind(text(|item| &item.name))
        .bind(short(|item| item.sale))
        .bind(text(|item| &item.size))
        .bind(long(|item| item.total_price))
        .bind(long(|item| item.nm_id))
        .bind(text(|item| &item.brand))
        .bind(short(|item| item.status))
        .execute(connection)
        .await
        .map(drop)
}

fn ids(orders: &[(i64, &Order)]) -> Vec<i64> {
    orders.iter().map(|(id, _)| *id).collect()
}
