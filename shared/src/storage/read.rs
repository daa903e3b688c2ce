//! Reads orders from Postgres.

use std::sync::LazyLock;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::{Postgres as Driver, QueryBuilder, Row, postgres::PgRow};

use super::{
    Postgres, StorageError,
    columns::{Columns as _, ReadColumns as _, Reader, Stamp, aggregated, names, selected},
};
use crate::order::{Delivery, Item, Order, OrderUid, Payment, Revision};

/// Returns a statement that selects whole orders, and hence in one snapshot: an order and its lines
/// always match. The lines come as one array per column, in the order of the lines.
fn select_revisions(condition: &str) -> String {
    format!(
        "SELECT {stamp}, o.erased_at IS NOT NULL, {order}, {delivery}, {payment}, i.* \
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

static READ: LazyLock<String> = LazyLock::new(|| select_revisions("WHERE o.order_uid = $1"));
static READ_MANY: LazyLock<String> =
    LazyLock::new(|| select_revisions("WHERE o.order_uid = ANY($1)"));
static READ_IDS: LazyLock<String> = LazyLock::new(|| select_revisions("WHERE o.id = ANY($1)"));
static NEWEST: LazyLock<String> = LazyLock::new(|| {
    select_revisions("WHERE o.erased_at IS NULL ORDER BY o.created_at DESC, o.id DESC LIMIT $1")
});

/// The end of a list page; the next page starts behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// When the order was first stored.
    pub created_at: DateTime<Utc>,
    /// The order's id in Postgres.
    pub id: i64,
}

/// The filter of a list of orders.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Lists only orders of this customer.
    pub customer_id: Option<String>,
    /// Lists only orders with this track number.
    pub track_number: Option<String>,
    /// Lists only orders behind this position.
    pub after: Option<Position>,
}

/// One line of a list of orders.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The position of the order in the list.
    pub position: Position,
    /// The order's uid.
    pub order_uid: String,
    /// Its track number.
    pub track_number: String,
    /// The id of its customer.
    pub customer_id: String,
    /// When the customer placed the order.
    pub date_created: DateTime<Utc>,
    /// Currency of the payment, ISO 4217.
    pub currency: String,
    /// Amount of the payment in minor units.
    pub amount: i64,
    /// The number of its items.
    pub item_count: i64,
}

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

    /// Returns at most `limit` orders that match `filter`, newest first: by the time when they were
    /// first stored, then by id. Erased orders are in no list.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list(
        &self,
        filter: &ListFilter,
        limit: u32,
    ) -> Result<Vec<Summary>, StorageError> {
        let mut statement = list_statement(filter, limit);
        let rows = self
            .run("list", async |connection| {
                statement.build().fetch_all(connection).await
            })
            .await?;
        rows.iter()
            .map(|row| summary(row).map_err(StorageError::from))
            .collect()
    }
}

/// Filters take columns of the first shape only. A column with `since` needs the expression of
/// [`selected`], because the row of an older worker may hold a value of an earlier version.
fn list_statement(filter: &ListFilter, limit: u32) -> QueryBuilder<Driver> {
    let mut query = QueryBuilder::new(
        "SELECT o.id::int8, o.created_at::timestamptz, o.order_uid::text, o.track_number::text, \
                o.customer_id::text, o.date_created::timestamptz, \
                p.currency::text, p.amount::int8, \
                (SELECT count(*) FROM items WHERE order_id = o.id) AS item_count \
         FROM orders o JOIN payments p ON p.order_id = o.id WHERE o.erased_at IS NULL",
    );
    if let Some(customer_id) = &filter.customer_id {
        query
            .push(" AND o.customer_id = ")
            .push_bind(customer_id.clone());
    }
    if let Some(track_number) = &filter.track_number {
        query
            .push(" AND o.track_number = ")
            .push_bind(track_number.clone());
    }
    if let Some(after) = filter.after {
        query
            .push(" AND (o.created_at, o.id) < (")
            .push_bind(after.created_at)
            .push(", ")
            .push_bind(after.id)
            .push(")");
    }
    query
        .push(" ORDER BY o.created_at DESC, o.id DESC LIMIT ")
        .push_bind(i64::from(limit));
    query
}

fn summary(row: &PgRow) -> Result<Summary, sqlx::Error> {
    Ok(Summary {
        position: Position {
            created_at: row.try_get("created_at")?,
            id: row.try_get("id")?,
        },
        order_uid: row.try_get("order_uid")?,
        track_number: row.try_get("track_number")?,
        customer_id: row.try_get("customer_id")?,
        date_created: row.try_get("date_created")?,
        currency: row.try_get("currency")?,
        amount: row.try_get("amount")?,
        item_count: row.try_get("item_count")?,
    })
}

fn revision(row: &PgRow) -> Result<Revision, StorageError> {
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
