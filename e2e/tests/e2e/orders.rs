//! Orders that tests send.

use e2e::Draft;
use shared::order::sample::Generator;

/// New orders, the same ones for the same `seed`.
pub(crate) fn drafts(seed: u64, count: usize) -> Vec<Draft> {
    Generator::new(seed, 1..=3)
        .take(count)
        .map(|order| Draft::order(&order))
        .collect()
}

/// Other content for the orders of `seed`.
pub(crate) fn changes(seed: u64, count: usize) -> Vec<Draft> {
    Generator::new(seed, 1..=3)
        .take(count)
        .zip(Generator::new(seed + 1000, 1..=3))
        .map(|(order, mut other)| {
            other.order_uid = order.order_uid;
            Draft::order(&other)
        })
        .collect()
}
