//! What the system promises, and the trials that try to break it. `make chaos` runs each of them at full length and prints
//! what it measured; `make test` runs the quick ones in short. `docs/promises.md` is for those who want to know what they can rely on.

mod backlog;
mod broker;
mod crashes;
mod dead_letter_topic;
mod erasure;
mod everything;
mod frozen;
mod not_found;
mod offsets;
mod order_of_arrival;
mod personal_data;
mod poison;
mod postgres;
mod redis;
mod refusal;
mod report;
mod rolling;
mod run;
mod sabotage;
mod shutdown;
mod staleness;
mod stalls;

pub use report::{Outcome, markdown};
pub use run::{Run, Scale, outcome};
pub use sabotage::{SABOTAGES, Sabotage};

/// A promise, and how it is tried.
#[derive(Debug)]
pub struct Promise {
    /// Its number in `docs/promises.md`.
    pub number: u8,
    /// What is promised.
    pub sentence: &'static str,
    /// What tries to break it.
    pub trials: &'static [Trial],
}

/// One way of trying to break a promise.
#[derive(Debug)]
pub struct Trial {
    /// Its name, and that of its test.
    pub name: &'static str,
    /// What is done to the system.
    pub fault: &'static str,
    /// Panics when the promise is broken.
    pub body: fn(&mut Run),
}

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
    everything::PROMISE,
];

/// The trial of that name.
///
/// # Panics
/// When there is none.
pub fn trial(name: &str) -> &'static Trial {
    let mut trials = PROMISES.iter().flat_map(|promise| promise.trials);
    trials
        .find(|trial| trial.name == name)
        .unwrap_or_else(|| panic!("no trial {name}"))
}
