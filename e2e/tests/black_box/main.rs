//! Properties of any running system, seen from outside, with any other users. The system is the one
//! that the variables `E2E_...` describe (see README.md of this crate), or one that is started for
//! these tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod changes;
mod dead_letters;
mod erasure;
mod events;
mod http;
mod ledger;
mod lists;
mod replay;

use e2e::System;
use shared::order::{Order, sample::Generator};

/// Orders that no other test and no other run has.
fn orders(system: &System) -> impl Iterator<Item = Order> {
    Generator::new(system.seed, 1..=4)
}

/// Returns an order with that uid and generated content.
fn order(uid: &str, seed: u64) -> Order {
    let mut order = Generator::new(seed, 1..=4)
        .next()
        .expect("the generator has no end");
    order.order_uid = uid.into();
    order
}
