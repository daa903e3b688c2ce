//! Circuit breaker: skips a Redis that does not answer, so that callers do not wait for one timeout
//! after another.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Failures in a row that open the breaker. Fewer may be a single broken connection.
const FAILURES: u32 = 3;
/// How long the breaker stays open before it admits one caller.
const OPEN: Duration = Duration::from_secs(1);

pub(super) struct Breaker {
    epoch: Instant,
    failures: AtomicU32,
    /// Microseconds after `epoch` from which the open breaker admits a caller.
    closed_from: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            failures: AtomicU32::new(0),
            closed_from: AtomicU64::new(0),
        }
    }
}

impl Breaker {
    /// Returns whether a call may be made now. An open breaker admits one caller per second.
    pub(super) fn admits(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) < FAILURES {
            return true;
        }
        let (now, closed_from) = (self.now(), self.closed_from.load(Ordering::Relaxed));
        now >= closed_from
            && self
                .closed_from
                .compare_exchange(
                    closed_from,
                    now + OPEN.as_micros() as u64,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Records whether Redis answered a call.
    pub(super) fn record(&self, answered: bool) {
        if answered {
            self.failures.store(0, Ordering::Relaxed);
        } else if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.closed_from
                .store(self.now() + OPEN.as_micros() as u64, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_three_failures_in_a_row_and_closes_at_an_answer() {
        let breaker = Breaker::default();
        breaker.record(false);
        breaker.record(false);
        breaker.record(true);
        breaker.record(false);
        breaker.record(false);
        assert!(breaker.admits());
        breaker.record(false);
        assert!(!breaker.admits());
        breaker.record(true);
        assert!(breaker.admits());
    }

    #[test]
    fn admits_one_caller_after_the_open_time() {
        let breaker = Breaker::default();
        (0..FAILURES).for_each(|_| breaker.record(false));
        breaker.closed_from.store(0, Ordering::Relaxed);
        assert!(breaker.admits());
        assert!(!breaker.admits());
    }
}
