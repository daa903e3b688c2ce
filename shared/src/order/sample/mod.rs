//! Orders to try things out with: valid ones, ones that break one rule each, and records that are no orders at all.
//!
//! Everything follows from a seed, so a run can be repeated.

mod defect;
mod generator;

pub use defect::Defect;
pub use generator::Generator;
use rand::Rng;

/// The order that documents the format, as it stands in the documentation.
pub const MODEL_JSON: &str = include_str!("../model.json");

/// JSON that ends too early: the document of an order, cut somewhere in its second half.
pub fn broken_json(order: &super::Order, rng: &mut impl Rng) -> Vec<u8> {
    let mut json = order.to_json();
    json.truncate(rng.random_range(json.len() / 2..json.len()));
    json
}

/// Bytes that are no JSON whatever follows: 1 to 64 of them, the first beyond ASCII.
pub fn gibberish(rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(1..=64)];
    rng.fill(bytes.as_mut_slice());
    bytes[0] |= 0x80;
    bytes
}
