//! Sample orders: valid orders, orders that break one rule each, and records that are not orders.
//!
//! Each sample follows from a seed, so a run can be repeated.

mod defect;
mod generator;

pub use defect::Defect;
pub use generator::Generator;
use rand::Rng;

/// The example order of the documentation.
pub const MODEL_JSON: &str = include_str!("../model.json");

/// Returns truncated JSON: the document of an order, cut at a random place in its second half.
pub fn broken_json(order: &super::Order, rng: &mut impl Rng) -> Vec<u8> {
    let mut json = order.to_json();
    json.truncate(rng.random_range(json.len() / 2..json.len()));
    json
}

/// Returns 1 to 64 bytes that never begin JSON: the first byte is not ASCII.
pub fn gibberish(rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(1..=64)];
    rng.fill(bytes.as_mut_slice());
    bytes[0] |= 0x80;
    bytes
}
