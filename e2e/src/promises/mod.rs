//! What the system promises, and the trials that try to break it. `make chaos` runs each trial at
//! full length and prints its measurements. `make test` runs short trials. `docs/promises.md` lists
//! the promises for users.

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
pub use sabotage::{BREAK, SABOTAGES, Sabotage};

/// A promise and its trials.
#[derive(Debug)]
pub struct Promise {
    /// Number in `docs/promises.md`.
    pub number: u8,
    /// The promise.
    pub sentence: &'static str,
    /// The trials that try to break it.
    pub trials: &'static [Trial],
}

/// One attempt to break a promise.
#[derive(Debug)]
pub struct Trial {
    /// Name of the trial and of its test.
    pub name: &'static str,
    /// What the trial does to the system.
    pub fault: &'static str,
    /// Runs the trial. Panics if the promise is broken.
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
