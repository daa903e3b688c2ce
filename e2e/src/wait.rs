//! Waiting for a state, never for a time.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up: generous, for the machine may be slow and busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a state is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` finds what it looks for.
///
/// # Panics
/// When it does not within [`DEADLINE`], with what was there instead.
#[track_caller]
pub fn until<T, E: Display>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    until_within(DEADLINE, what, look)
}

/// As [`until`], with another deadline: where an outage that a test makes, or far more work than usual, is a part
/// of the wait.
#[track_caller]
pub(crate) fn until_within<T, E: Display>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => {
                panic!("waited {limit:?} for this: {what}; there was instead: {seen}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
