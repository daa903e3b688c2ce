//! One version of an order, as every tier stores it.

use bytes::Bytes;

use super::{OrderUid, Version};

/// One version of an order: Postgres stores it, Redis caches it, the api returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The uid of the order.
    pub uid: OrderUid,
    /// The version.
    pub version: Version,
    /// The canonical bytes of the order ([`Order::to_json`](super::Order::to_json)), or `None` if
    /// it is erased. They have the shape of this program
    /// ([`REPRESENTATION`](super::REPRESENTATION)).
    pub document: Option<Bytes>,
}
