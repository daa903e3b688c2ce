//! Reads orders from Postgres.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use smol_str::SmolStr;
use sqlx::{Postgres as Driver, QueryBuilder, Row, postgres::PgRow};
use tokio::time::timeout_at;

use super::{Postgres, StorageError};
use crate::order::{Delivery, Item, Order, OrderUid, Payment, Revision, Version};

/// Selects whole orders in one statement and hence in one snapshot: an order and its lines always
/// match. The lines come as one array per column, in the order of the lines.
///
/// Each column is cast to the type that it is read as, so that a migration may widen it. If it
/// already has that type, Postgres drops the cast when it parses the statement.
macro_rules! select_revisions {
    ($condition:literal) => {
        concat!(
            "SELECT o.order_uid::text, o.track_number::text, o.entry::text, o.locale::text, \
                    o.internal_signature::text, o.customer_id::text, o.delivery_service::text, o.shard_key::text, \
                    o.sm_id::int4, o.date_created::timestamptz, o.oof_shard::text, o.source_timestamp_ms::int8, \
                    o.source_offset::int8, o.source_partition::int4, o.erased_at IS NOT NULL AS erased, \
                    d.name::text, d.phone::text, d.zip::text, d.city::text, d.address::text, d.region::text, \
                    d.email::text, \
                    p.transaction::text, p.request_id::text, p.currency::text, p.provider::text, p.amount::int8, \
                    p.payment_dt::int8, p.bank::text, p.delivery_cost::int8, p.goods_total::int8, p.custom_fee::int8, \
                    i.chrt_ids, i.track_numbers, i.prices, i.rids, i.names, i.sales, i.sizes, i.total_prices, \
                    i.nm_ids, i.brands, i.statuses \
             FROM orders o \
             LEFT JOIN deliveries d ON d.order_id = o.id \
             LEFT JOIN payments p ON p.order_id = o.id \
             CROSS JOIN LATERAL ( \
                 SELECT array_agg(l.chrt_id::int8) AS chrt_ids, array_agg(l.track_number::text) AS track_numbers, \
                        array_agg(l.price::int8) AS prices, array_agg(l.rid::text) AS rids, \
                        array_agg(l.name::text) AS names, array_agg(l.sale::int4) AS sales, \
                        array_agg(l.size::text) AS sizes, array_agg(l.total_price::int8) AS total_prices, \
                        array_agg(l.nm_id::int8) AS nm_ids, array_agg(l.brand::text) AS brands, \
                        array_agg(l.status::int4) AS statuses \
                 FROM (SELECT chrt_id, track_number, price, rid, name, sale, size, total_price, nm_id, brand, status \
                       FROM items WHERE order_id = o.id ORDER BY line_no) l \
             ) i ",
            $condition
        )
    };
}

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
        let mut lease = self.lease("read").await?;
        let statement = sqlx::query(select_revisions!("WHERE o.order_uid = $1")).bind(uid.as_str());
        let answer = timeout_at(
            lease.deadline,
            statement.fetch_optional(&mut **lease.connection),
        )
        .await;
        lease.finish(answer)?.map(|row| revision(&row)).transpose()
    }

    /// Returns those of the orders `uids` that Postgres holds, in any order.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn read_many(&self, uids: &[OrderUid]) -> Result<Vec<Revision>, StorageError> {
        let uids: Vec<&str> = uids.iter().map(OrderUid::as_str).collect();
        let mut lease = self.lease("read_many").await?;
        let statement = sqlx::query(select_revisions!("WHERE o.order_uid = ANY($1)")).bind(uids);
        let answer = timeout_at(lease.deadline, statement.fetch_all(&mut **lease.connection)).await;
        lease.finish(answer)?.iter().map(revision).collect()
    }

    /// Returns orders like [`Postgres::read_many`], by the ids from [`Postgres::changed_since`].
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn read_ids(&self, ids: &[i64]) -> Result<Vec<Revision>, StorageError> {
        let mut lease = self.lease("read_ids").await?;
        let statement = sqlx::query(select_revisions!("WHERE o.id = ANY($1)")).bind(ids);
        let answer = timeout_at(lease.deadline, statement.fetch_all(&mut **lease.connection)).await;
        lease.finish(answer)?.iter().map(revision).collect()
    }

    /// Returns the newest `limit` orders that are not erased, newest first.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn newest(&self, limit: u32) -> Result<Vec<Revision>, StorageError> {
        let mut lease = self.lease("newest").await?;
        let statement = sqlx::query(select_revisions!(
            "WHERE o.erased_at IS NULL ORDER BY o.created_at DESC, o.id DESC LIMIT $1"
        ))
        .bind(i64::from(limit));
        let answer = timeout_at(lease.deadline, statement.fetch_all(&mut **lease.connection)).await;
        lease.finish(answer)?.iter().map(revision).collect()
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
        let mut lease = self.lease("list").await?;
        let answer = timeout_at(
            lease.deadline,
            statement.build().fetch_all(&mut **lease.connection),
        )
        .await;
        lease
            .finish(answer)?
            .iter()
            .map(|row| summary(row).map_err(StorageError::from))
            .collect()
    }
}

fn list_statement(filter: &ListFilter, limit: u32) -> QueryBuilder<Driver> {
    let mut query = QueryBuilder::new(
        "SELECT o.id::int8, o.created_at::timestamptz, o.order_uid::text, o.track_number::text, o.customer_id::text, \
                o.date_created::timestamptz, p.currency::text, p.amount::int8, \
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
    let version = Version::new(
        row.try_get("source_timestamp_ms")?,
        row.try_get("source_offset")?,
        row.try_get("source_partition")?,
    );
    let uid = OrderUid::parse(row.try_get("order_uid")?)
        .map_err(|error| StorageError::Unexpected(error.to_string()))?;
    let document = match row.try_get("erased")? {
        true => None,
        false => Some(Bytes::from(order(&uid, row)?.to_json())),
    };
    Ok(Revision {
        uid,
        version,
        document,
    })
}

fn order(uid: &OrderUid, row: &PgRow) -> Result<Order, sqlx::Error> {
    let text = |column| row.try_get::<&str, _>(column).map(SmolStr::from);
    Ok(Order {
        order_uid: uid.as_str().into(),
        track_number: text("track_number")?,
        entry: text("entry")?,
        delivery: Delivery {
            name: text("name")?,
            phone: text("phone")?,
            zip: text("zip")?,
            city: text("city")?,
            address: text("address")?,
            region: text("region")?,
            email: text("email")?,
        },
        payment: Payment {
            transaction: text("transaction")?,
            request_id: text("request_id")?,
            currency: text("currency")?,
            provider: text("provider")?,
            amount: row.try_get("amount")?,
            payment_dt: row.try_get("payment_dt")?,
            bank: text("bank")?,
            delivery_cost: row.try_get("delivery_cost")?,
            goods_total: row.try_get("goods_total")?,
            custom_fee: row.try_get("custom_fee")?,
        },
        items: items(row)?,
        locale: text("locale")?,
        internal_signature: text("internal_signature")?,
        customer_id: text("customer_id")?,
        delivery_service: text("delivery_service")?,
        shardkey: text("shard_key")?,
        sm_id: row.try_get("sm_id")?,
        date_created: row.try_get("date_created")?,
        oof_shard: text("oof_shard")?,
    })
}

fn items(row: &PgRow) -> Result<Vec<Item>, sqlx::Error> {
    let texts = |column| {
        let texts: Vec<String> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(texts.into_iter().map(SmolStr::from))
    };
    let chrt_ids: Vec<i64> = row.try_get("chrt_ids")?;
    let mut track_numbers = texts("track_numbers")?;
    let mut prices = row.try_get::<Vec<i64>, _>("prices")?.into_iter();
    let mut rids = texts("rids")?;
    let mut names = texts("names")?;
    let mut sales = row.try_get::<Vec<i32>, _>("sales")?.into_iter();
    let mut sizes = texts("sizes")?;
    let mut total_prices = row.try_get::<Vec<i64>, _>("total_prices")?.into_iter();
    let mut nm_ids = row.try_get::<Vec<i64>, _>("nm_ids")?.into_iter();
    let mut brands = texts("brands")?;
    let mut statuses = row.try_get::<Vec<i32>, _>("statuses")?.into_iter();
    chrt_ids
        .into_iter()
        .map(|chrt_id| {
            Some(Item {
                chrt_id,
                track_number: track_numbers.next()?,
                price: prices.next()?,
                rid: rids.next()?,
                name: names.next()?,
                sale: sales.next()?,
                size: sizes.next()?,
                total_price: total_prices.next()?,
                nm_id: nm_ids.next()?,
                brand: brands.next()?,
                status: statuses.next()?,
            })
        })
        .collect::<Option<Vec<Item>>>()
        .ok_or_else(|| sqlx::Error::Protocol("item arrays of different lengths".to_owned()))
}
