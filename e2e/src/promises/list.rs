//! The list of all promises.

use super::{
    backlog, broker, crashes, dead_letter_topic, erasure, everything, frozen, hostile, not_found,
    offsets, order_of_arrival, personal_data, poison, postgres, redis, rolling, staleness, stalls,
    trial::{Promise, Trial},
};

/// Every promise.
pub const PROMISES: &[Promise] = &[
    crashes::PROMISE,
    offsets::PROMISE,
    rolling::PROMISE,
    frozen::PROMISE,
    broker::PROMISE,
    postgres::PROMISE,
    poison::PROMISE,
    dead_letter_topic::PROMISE,
    order_of_arrival::PROMISE,
    staleness::PROMISE,
    redis::PROMISE,
    not_found::PROMISE,
    backlog::PROMISE,
    stalls::PROMISE,
    erasure::PROMISE,
    personal_data::PROMISE,
    hostile::PROMISE,
    everything::PROMISE,
];

/// Returns the trial of that name.
///
/// # Panics
/// There is no such trial.
pub fn trial(name: &str) -> &'static Trial {
    let mut trials = PROMISES.iter().flat_map(|promise| promise.trials);
    trials
        .find(|trial| trial.name == name)
        .unwrap_or_else(|| panic!("no trial {name}"))
}
