//! Tests of storage and cache against a real Postgres and a real Redis.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but does not reach their helper functions"
)]

mod cache;
mod round_trips;
mod startup;
mod storage;

use bytes::Bytes;
use shared::{
    order::{Order, OrderUid, Revision, Version, sample::Generator},
    storage::Change,
};

/// Returns a valid order with the uid `uid`. `seed` generates the other fields.
fn order(uid: &str, seed: u64) -> Order {
    let mut order = Generator::new(seed, 1..=4).next().unwrap();
    order.order_uid = uid.into();
    order
}

fn uid(text: &str) -> OrderUid {
    OrderUid::parse(text).unwrap()
}

fn version(offset: i64) -> Version {
    Version::new(1_700_000_000_000, offset, 0)
}

fn change(order: &Order, offset: i64) -> Change {
    Change {
        uid: uid(&order.order_uid),
        version: version(offset),
        order: Some(Box::new(order.clone())),
    }
}

fn erasure(text: &str, offset: i64) -> Change {
    Change {
        uid: uid(text),
        version: version(offset),
        order: None,
    }
}

fn revision(order: &Order, offset: i64) -> Revision {
    Revision {
        uid: uid(&order.order_uid),
        version: version(offset),
        document: Some(Bytes::from(order.to_json())),
    }
}
