//! Records from the future: which clock decides, and how many of them mean that the clock is wrong.
//!
//! A producer whose clock is ahead must not freeze an order, so its records are dead-lettered. But
//! a worker whose own clock is behind sees every record in the future. So a record is from the
//! future only if it is ahead of both this worker's clock and that of Postgres. If the worker reads
//! only such records, it stops.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use shared::order::{Reason, Rejection};
use tokio::time::Instant;

/// More records from the future in a row than this stop the worker.
const MAX_IN_A_ROW: usize = 20;

/// A worker logs an error if its clock is further behind Postgres than this.
const TOLERATED: Duration = Duration::from_secs(60);

/// The later of this worker's clock and that of Postgres.
#[derive(Debug, Default)]
pub struct Clock {
    reference: Mutex<Option<Reference>>,
}

/// A time that Postgres returned, and the monotonic time at which the worker read it.
#[derive(Clone, Copy, Debug)]
struct Reference {
    time: SystemTime,
    at: Instant,
    was_behind: bool,
}

impl Clock {
    /// Stores the time that Postgres has just returned.
    pub fn observe(&self, time: SystemTime) {
        let behind = time.duration_since(SystemTime::now()).unwrap_or_default();
        let is_behind = behind > TOLERATED;
        let reference = Reference {
            time,
            at: Instant::now(),
            was_behind: is_behind,
        };
        let before = self.reference.lock().replace(reference);
        if is_behind && !before.is_some_and(|before| before.was_behind) {
            let behind_s = behind.as_secs();
            tracing::error!(
                behind_s,
                runbook = "WorkerStopped",
                "clock is behind that of Postgres; using the one of Postgres"
            );
        }
    }

    /// Returns the time that record timestamps are compared with.
    pub fn now(&self) -> SystemTime {
        let own = SystemTime::now();
        match *self.reference.lock() {
            Some(reference) => own.max(reference.time + reference.at.elapsed()),
            None => own,
        }
    }
}

/// Stops the worker when it reads only records from the future.
#[derive(Debug)]
pub struct FutureGuard {
    pub(super) clock: Arc<Clock>,
    in_a_row: usize,
    is_closed: bool,
}

impl FutureGuard {
    /// Creates an open guard. If it is `suspicious`, the first record from the future closes it. A
    /// worker starts it so if the newest dead letters are such records. Otherwise repeated restarts
    /// would empty the topic in steps.
    pub fn new(clock: Arc<Clock>, suspicious: bool) -> Self {
        Self {
            clock,
            in_a_row: if suspicious { MAX_IN_A_ROW } else { 0 },
            is_closed: false,
        }
    }

    /// Returns whether records from the future are held. A held record is neither stored nor
    /// dead-lettered.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Returns whether a record with the result `decoded` goes on. The first record that is not
    /// from the future opens the guard.
    pub(super) fn admits<T>(&mut self, decoded: &Result<T, Rejection>) -> bool {
        match decoded {
            Err(rejection) if rejection.reason == Reason::FutureTimestamp => {
                self.in_a_row += 1;
                if self.in_a_row > MAX_IN_A_ROW && !self.is_closed {
                    self.is_closed = true;
                    tracing::error!(
                        in_a_row = self.in_a_row,
                        detail = rejection.detail,
                        runbook = "WorkerStopped",
                        "every record is from the future; paused"
                    );
                }
                !self.is_closed
            }
            // Decoding did not check its time.
            Err(rejection) if rejection.reason == Reason::TooLarge => true,
            _ => {
                self.in_a_row = 0;
                if self.is_closed {
                    self.is_closed = false;
                    tracing::info!("record is not from the future; resuming");
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn rejected(reason: Reason) -> Result<(), Rejection> {
        Err(Rejection {
            reason,
            detail: String::new(),
        })
    }

    fn guard(suspicious: bool) -> FutureGuard {
        FutureGuard::new(Arc::default(), suspicious)
    }

    #[test]
    fn the_later_clock_is_used() {
        let clock = Clock::default();
        let own = SystemTime::now();
        assert!(clock.now() >= own);
        clock.observe(own - HOUR);
        assert!(clock.now() >= own, "Postgres is behind");
        clock.observe(own + HOUR);
        assert!(clock.now() >= own + HOUR);
        clock.observe(own);
        assert!(clock.now() < own + HOUR, "the newest answer counts");
    }

    #[test]
    fn few_records_from_the_future_do_not_stop_the_intake() {
        let mut guard = guard(false);
        for _ in 0..3 {
            for _ in 0..MAX_IN_A_ROW {
                assert!(guard.admits(&rejected(Reason::FutureTimestamp)));
            }
            assert!(guard.admits(&Ok(())), "another producer's clock is right");
        }
    }

    #[test]
    fn many_in_a_row_close_it_until_another_record_comes() {
        let mut guard = guard(false);
        for _ in 0..MAX_IN_A_ROW {
            assert!(guard.admits(&rejected(Reason::FutureTimestamp)));
        }
        assert!(!guard.admits(&rejected(Reason::FutureTimestamp)));
        assert!(guard.admits(&rejected(Reason::TooLarge)));
        assert!(guard.is_closed(), "its time is not known");
        assert!(guard.admits(&rejected(Reason::MalformedJson)));
        assert!(!guard.is_closed());
        assert!(guard.admits(&rejected(Reason::FutureTimestamp)));
    }

    #[test]
    fn after_a_restart_the_first_future_record_closes_it() {
        let mut suspicious = guard(true);
        assert!(!suspicious.admits(&rejected(Reason::FutureTimestamp)));
        let mut trusting = guard(true);
        assert!(trusting.admits(&Ok(())));
        assert!(trusting.admits(&rejected(Reason::FutureTimestamp)));
    }
}
