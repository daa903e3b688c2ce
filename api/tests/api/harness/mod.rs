//! The harness of all tests: services, replicas, a client.

mod client;
mod events;
mod replica;
mod world;

use shared::order::{DocumentVersion, Order, OrderUid, UnknownFields, Version, decode};

pub(crate) use client::{Connection, Request, Response};
pub(crate) use events::{Event, EventStream};
pub(crate) use replica::Replica;
pub(crate) use world::{World, revision};

/// The sample order of the specification.
const MODEL: &str = include_str!("../../../../shared/src/order/model.json");

pub(crate) fn uid(text: &str) -> OrderUid {
    OrderUid::parse(text).unwrap()
}

pub(crate) fn version(offset: i64) -> Version {
    Version::new(1_700_000_000_000, offset, 3)
}

/// The `ETag` of the version of `offset`.
pub(crate) fn etag(offset: i64) -> String {
    format!("\"{}\"", event_id(offset))
}

/// The `id` of events of the version of `offset`.
pub(crate) fn event_id(offset: i64) -> String {
    DocumentVersion::current(version(offset)).to_string()
}

/// A valid order.
pub(crate) fn order(uid: &str) -> Order {
    let mut order = decode(MODEL.as_bytes(), UnknownFields::Ignore)
        .unwrap()
        .order;
    order.order_uid = uid.into();
    order
}
