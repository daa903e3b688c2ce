//! Response bodies other than the order itself.

use poem_openapi::Object;
use serde::Serialize;
use shared::storage::{Position, Summary};

use super::{cursor, params::ORDER_PREFIX};

/// A page of orders, newest first by the time they were first stored.
#[derive(Serialize, Object)]
pub(super) struct OrderList {
    /// The orders.
    pub(super) orders: Vec<OrderSummary>,
    /// The `cursor` of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[oai(skip_serializing_if_is_none)]
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
}

/// Summary of an order, as listed.
#[derive(Serialize, Object)]
pub(super) struct OrderSummary {
    /// Identifies the order.
    order_uid: String,
    /// Identifies the parcel.
    track_number: String,
    /// Identifies the customer.
    customer_id: String,
    /// When the order was placed: RFC 3339, UTC.
    date_created: String,
    /// When the order was first stored: RFC 3339, UTC.
    created_at: String,
    /// Currency: an ISO 4217 alphabetic code, current or historic.
    currency: String,
    /// The amount paid, in minor units of the currency.
    amount: i64,
    /// Number of items in the order.
    item_count: i64,
    /// Related resources.
    links: Links,
}

/// Related resources of a listed order.
#[derive(Serialize, Object)]
pub(super) struct Links {
    /// Path of the full order.
    #[serde(rename = "self")]
    #[oai(rename = "self")]
    this: String,
}

impl From<Summary> for OrderSummary {
    fn from(order: Summary) -> Self {
        let time = |time: chrono::DateTime<chrono::Utc>| {
            time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
        };
        Self {
            links: Links {
                this: format!("{ORDER_PREFIX}{}", order.order_uid),
            },
            order_uid: order.order_uid,
            track_number: order.track_number,
            customer_id: order.customer_id,
            date_created: time(order.date_created),
            created_at: time(order.position.created_at),
            currency: order.currency,
            amount: order.amount,
            item_count: order.item_count,
        }
    }
}
