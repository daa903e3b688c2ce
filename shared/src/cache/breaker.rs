//! Leaves a Redis that does not answer alone, so that callers do not wait for one timeout after the other.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// So many outages in a row open the breaker; fewer may be one connection that broke.
const FAILURES: u32 = 3;
/// How long it stays open before one caller may try again.
const OPEN: Duration = Duration::from_secs(1);

pub(super) struct Breaker {
    epoch: Instant,
    failures: AtomicU32,
    /// Microseconds after `epoch` from which a caller is admitted.
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
    /// Whether a call may be made now. After the open time one caller is admitted at a time, each second.
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
    fn opens_after_three_outages_in_a_row_and_closes_with_an_answer() {
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
