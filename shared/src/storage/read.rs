//! Reads orders from Postgres.

use std::sync::LazyLock;

use bytes::Bytes;
use sqlx::postgres::PgRow;

use super::{
    Postgres, StorageError,
    columns::{Columns as _, ReadColumns as _, Reader, Stamp, aggregated, names, selected},
};
use crate::order::{Delivery, Item, Order, OrderUid, Payment, Revision};

/// Returns a statement that selects whole orders, and hence in one snapshot: an order and its lines
/// always match. The lines come as one array per column, in the order of the lines. `more` selects
/// more columns, behind those that [`revision`] reads.
pub(super) fn select_revisions(more: &str, condition: &str) -> String {
    format!(
        "SELECT {stamp}, o.erased_at IS NOT NULL, {order}, {delivery}, {payment}, i.*{more} \
         FROM orders o \
         LEFT JOIN deliveries d ON d.order_id = o.id \
         LEFT JOIN payments p ON p.order_id = o.id \
         CROSS JOIN LATERAL ( \
             SELECT {items} \
             FROM (SELECT {lines} FROM items WHERE order_id = o.id ORDER BY line_no) l \
         ) i {condition}",
        stamp = selected("o", Stamp::COLUMNS),
        order = selected("o", Order::COLUMNS),
        delivery = selected("d", Delivery::COLUMNS),
        payment = selected("p", Payment::COLUMNS),
        items = aggregated("l", Item::COLUMNS),
        lines = names(Item::COLUMNS),
    )
}

static READ: LazyLock<String> = LazyLock::new(|| select_revisions("", "WHERE o.order_uid = $1"));
static READ_MANY: LazyLock<String> =
    LazyLock::new(|| select_revisions("", "WHERE o.order_uid = ANY($1)"));
static READ_IDS: LazyLock<String> = LazyLock::new(|| select_revisions("", "WHERE o.id = ANY($1)"));
static NEWEST: LazyLock<String> = LazyLock::new(|| {
    select_revisions(
        "",
        "WHERE o.erased_at IS NULL ORDER BY o.created_at DESC, o.id DESC LIMIT $1",
    )
});

impl Postgres {
    /// Returns the order `uid` as Postgres holds it now; none if Postgres does not have it.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn read(&self, uid: &OrderUid) -> Result<Option<Revision>, StorageError> {
        let statement = sqlx::query(READ.as_str()).bind(uid.as_str());
        let row = self
            .run("read", async |connection| {
                statement.fetch_optional(connection).await
            })
            .await?;
        row.map(|row| revision(&row)).transpose()
    }

    /// Returns those of the orders `uids` that Postgres holds, in any order.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn read_many(&self, uids: &[OrderUid]) -> Result<Vec<Revision>, StorageError> {
        let uids: Vec<&str> = uids.iter().map(OrderUid::as_str).collect();
        let statement = sqlx::query(READ_MANY.as_str()).bind(uids);
        let rows = self
            .run("read_many", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        rows.iter().map(revision).collect()
    }

    /// Returns orders like [`Postgres::read_many`], by the ids from [`Postgres::changed_since`].
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn read_ids(&self, ids: &[i64]) -> Result<Vec<Revision>, StorageError> {
        let statement = sqlx::query(READ_IDS.as_str()).bind(ids);
        let rows = self
            .run("read_ids", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        rows.iter().map(revision).collect()
    }

    /// Returns the newest `limit` orders that are not erased, newest first.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn newest(&self, limit: u32) -> Result<Vec<Revision>, StorageError> {
        let statement = sqlx::query(NEWEST.as_str()).bind(i64::from(limit));
        let rows = self
            .run("newest", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        rows.iter().map(revision).collect()
    }
}

pub(super) fn revision(row: &PgRow) -> Result<Revision, StorageError> {
    let columns = &mut Reader::new(row);
    let stamp = Stamp::read(columns)?;
    let document = match columns.value()? {
        true => None,
        false => Some(Bytes::from(order(stamp.order_uid, columns)?.to_json())),
    };
    Ok(Revision {
        uid: stamp.order_uid,
        version: stamp.version(),
        document,
    })
}

fn order(uid: OrderUid, columns: &mut Reader<'_>) -> Result<Order, sqlx::Error> {
    Order::from_columns(columns, |columns| {
        Ok((
            uid.as_str().into(),
            Delivery::read(columns)?,
            Payment::read(columns)?,
            Item::read_all(columns)?,
        ))
    })
}
