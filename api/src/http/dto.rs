//! Response bodies other than the order itself, and the limits of what a request may ask for.
//! [`schema`](super::schema) describes them.

use std::{borrow::Cow, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use shared::{
    order::OrderUid,
    storage::{Position, Summary},
};

use super::cursor;

/// Maximum number of orders in a page.
pub(super) const MAX_LIMIT: u32 = 100;

/// Maximum number of uids in a batch.
pub(super) const MAX_UIDS: usize = 100;

/// Prefix of the path of an order.
pub(super) const ORDER_PREFIX: &str = "/order/";

/// A page of orders, newest first by the time they were first stored.
#[derive(Serialize)]
pub(super) struct OrderList {
    /// The orders.
    pub(super) orders: Vec<OrderSummary>,
    /// The `cursor` of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

impl OrderList {
    /// Builds a page from the first `limit` of `orders`. One order more means that there is a next
    /// page.
    pub(super) fn page(mut orders: Vec<Summary>, limit: usize) -> Self {
        let more = orders.len() > limit;
        orders.truncate(limit);
        let last: Option<Position> = orders.last().filter(|_| more).map(|order| order.position);
        Self {
            orders: orders.into_iter().map(OrderSummary::from).collect(),
            next_cursor: last.map(cursor::encode),
        }
    }

    /// The uids of the orders.
    pub(super) fn uids(&self) -> Arc<[OrderUid]> {
        let uids = self.orders.iter();
        uids.filter_map(|order| OrderUid::parse(&order.order_uid).ok())
            .collect()
    }
}

/// Summary of an order, as listed.
#[derive(Serialize)]
pub(super) struct OrderSummary {
    /// Identifies the order.
    order_uid: String,
    /// Identifies the parcel.
    track_number: String,
    /// Identifies the customer.
    customer_id: String,
    /// When the order was placed.
    date_created: Time,
    /// When the order was first stored.
    created_at: Time,
    /// Currency: an ISO 4217 alphabetic code, current or historic.
    currency: String,
    /// The amount paid, in minor units of the currency.
    amount: i64,
    /// Number of items in the order.
    item_count: i64,
    /// Related resources.
    links: Links,
}

impl OrderSummary {
    /// Names of [`OrderSummary::cells`].
    pub(super) const COLUMNS: [&str; 8] = [
        "order_uid",
        "track_number",
        "customer_id",
        "date_created",
        "created_at",
        "currency",
        "amount",
        "item_count",
    ];

    /// The summary as a line of a table, without links.
    pub(super) fn cells(&self) -> [Cow<'_, str>; Self::COLUMNS.len()] {
        [
            self.order_uid.as_str().into(),
            self.track_number.as_str().into(),
            self.customer_id.as_str().into(),
            self.date_created.0.as_str().into(),
            self.created_at.0.as_str().into(),
            self.currency.as_str().into(),
            self.amount.to_string().into(),
            self.item_count.to_string().into(),
        ]
    }
}

/// A point in time: RFC 3339, UTC.
#[derive(Serialize)]
struct Time(String);

impl From<DateTime<Utc>> for Time {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

/// Related resources of a listed order.
#[derive(Serialize)]
pub(super) struct Links {
    /// Path of the full order.
    #[serde(rename = "self")]
    this: String,
}

impl From<Summary> for OrderSummary {
    fn from(order: Summary) -> Self {
        Self {
            links: Links {
                this: format!("{ORDER_PREFIX}{}", order.order_uid),
            },
            order_uid: order.order_uid,
            track_number: order.track_number,
            customer_id: order.customer_id,
            date_created: Time::from(order.date_created),
            created_at: Time::from(order.position.created_at),
            currency: order.currency,
            amount: order.amount,
            item_count: order.item_count,
        }
    }
}

/// A summary with any values.
#[cfg(test)]
pub(super) fn sample_summary() -> Summary {
    Summary {
        position: Position {
            created_at: chrono::DateTime::UNIX_EPOCH,
            id: 1,
        },
        order_uid: "u".to_owned(),
        track_number: "t".to_owned(),
        customer_id: "c".to_owned(),
        date_created: chrono::DateTime::UNIX_EPOCH,
        currency: "USD".to_owned(),
        amount: 1,
        item_count: 1,
    }
}
