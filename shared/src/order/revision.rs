//! One version of an order as every tier holds it.

use bytes::Bytes;

use super::{OrderUid, Version};

/// One version of an order: what Postgres holds, what Redis caches, what the api answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Which order.
    pub uid: OrderUid,
    /// Which version of it.
    pub version: Version,
    /// The canonical bytes of the order ([`Order::to_json`](super::Order::to_json)); none when it is erased.
    pub document: Option<Bytes>,
}
