//! Waiting for a state, never for a time.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// Deadline of a wait. Generous, because the machine may be slow and busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Interval between two checks of a state.
const PAUSE: Duration = Duration::from_millis(50);

/// Calls `look` until it returns `Ok`.
///
/// # Panics
/// It does not within [`DEADLINE`]. The message contains the last error.
#[track_caller]
pub fn until<T, E: Display>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    until_within(DEADLINE, what, look)
}

/// Like [`until`], with another deadline. Needed if the wait includes an outage or unusually much
/// work.
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
                panic!("waited {limit:?} for {what}; last seen: {seen}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
