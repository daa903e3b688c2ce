//! Upserts orders of any kind (known, new or erased) if they are the newest version.

use std::sync::LazyLock;

use sqlx::{PgConnection, Row};

use super::{CacheWrite, Candidate};
use crate::{
    fault::Moment,
    order::{Delivery, Item, Order, Payment},
    storage::columns::{Columns as _, DELIVERIES, ITEMS, Insert, ORDERS, PAYMENTS, Stamp},
};

/// The upsert of `orders` alone. The children follow in later statements, so that each statement
/// sees what was committed while the transaction waited for its locks. One statement for all four
/// tables has a snapshot older than the lock that it waits for, and leaves duplicate children
/// behind.
///
/// `now()` is the start of a transaction, which may be earlier than the start of the transaction
/// that it waited for. So `updated_at` never goes back: no row changes before it was created.
static UPSERT_ORDERS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO orders ({names}, erased_at) \
         SELECT {names}, CASE WHEN erased THEN now() END \
         FROM unnest({arrays}, ${erased}::bool[]) AS u ({names}, erased) \
         ON CONFLICT (order_uid) DO UPDATE SET \
             {assignments}, erased_at = EXCLUDED.erased_at, \
             updated_at = greatest(now(), orders.updated_at) \
         WHERE (orders.source_timestamp_ms, orders.source_offset, orders.source_partition) \
             < (EXCLUDED.source_timestamp_ms, EXCLUDED.source_offset, EXCLUDED.source_partition) \
         RETURNING order_uid::text, orders.id::int8, xmax <> 0 AS replaced",
        names = ORDERS.names(),
        arrays = ORDERS.arrays(),
        erased = ORDERS.width() + 1,
        assignments = ORDERS.assignments(&["id", "order_uid"]),
    )
});

static INSERT_DELIVERIES: LazyLock<String> = LazyLock::new(|| DELIVERIES.insert());
static INSERT_PAYMENTS: LazyLock<String> = LazyLock::new(|| PAYMENTS.insert());
static INSERT_ITEMS: LazyLock<String> = LazyLock::new(|| ITEMS.insert());

/// Deletes the children of orders that were replaced, and notes that Redis still holds the old
/// versions.
const REPLACE: &str = "\
    WITH delivery AS (DELETE FROM deliveries WHERE order_id = ANY($1)), \
         payment AS (DELETE FROM payments WHERE order_id = ANY($1)), \
         item AS (DELETE FROM items WHERE order_id = ANY($1)) \
    INSERT INTO cache_writes (order_uids) VALUES ($2) RETURNING id::int8";

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
        for insert in insert_children(&orders) {
            insert.execute(&mut *connection).await?;
        }
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
    let ids: Vec<i64> = candidates.iter().map(|candidate| candidate.id).collect();
    let stamps: Vec<Stamp> = changes().map(Stamp::of).collect();
    let erased: Vec<bool> = changes().map(|change| change.order.is_none()).collect();

    let insert = Stamp::bind(
        sqlx::query(UPSERT_ORDERS.as_str()).bind(ids),
        stamps.iter().map(Some),
    );
    let insert = Order::bind(insert, changes().map(|change| change.order.as_deref()));
    let rows = insert.bind(erased).fetch_all(connection).await?;

    let mut winners: Vec<Option<Winner>> = candidates.iter().map(|_| None).collect();
    for row in &rows {
        let uid: &str = row.try_get("order_uid")?;
        let index = candidates
            .binary_search_by(|candidate| candidate.change.uid.as_str().cmp(uid))
            .map_err(|_| {
                sqlx::Error::Protocol("Postgres returned a row of another order".to_owned())
            })?;
        winners[index] = Some(Winner {
            id: row.try_get("id")?,
            replaced: row.try_get("replaced")?,
        });
    }
    Ok(winners)
}

/// Returns the inserts of the children of `orders`.
fn insert_children(orders: &[(i64, &Order)]) -> [Insert<'static>; 3] {
    let insert = |statement: &'static str| {
        let ids: Vec<i64> = orders.iter().map(|(id, _)| *id).collect();
        sqlx::query(statement).bind(ids)
    };
    let lines = orders.iter().flat_map(|(id, order)| {
        let lines = (0_i32..).zip(&order.items);
        lines.map(move |(line_no, item)| (*id, line_no, item))
    });
    let (ids, line_nos): (Vec<i64>, Vec<i32>) = lines.clone().map(|(id, no, _)| (id, no)).unzip();
    [
        Delivery::bind(
            insert(&INSERT_DELIVERIES),
            orders.iter().map(|(_, order)| Some(&order.delivery)),
        ),
        Payment::bind(
            insert(&INSERT_PAYMENTS),
            orders.iter().map(|(_, order)| Some(&order.payment)),
        ),
        Item::bind(
            sqlx::query(INSERT_ITEMS.as_str()).bind(ids).bind(line_nos),
            lines.map(|(_, _, item)| Some(item)),
        ),
    ]
}
