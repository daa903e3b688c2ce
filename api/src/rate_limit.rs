//! Rate limit per client.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Slots in the table. Two clients in one slot share its rate; that is the price of a fixed size.
const SLOTS: usize = 16 * 1024;

/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// A rate for each client, in a table of fixed size. A burst may spend the rate of one second.
pub struct RateLimit {
    epoch: Instant,
    /// Time between two requests at the sustained rate.
    interval: Duration,
    hasher: RandomState,
    /// Per slot: when the admitted requests are paid off at the sustained rate, in nanoseconds
    /// after `epoch`.
    paid_at: Box<[AtomicU64]>,
}

impl RateLimit {
    /// Creates a limit of `rate` requests per second, at least one.
    pub fn per_second(rate: u32) -> Self {
        Self {
            epoch: Instant::now(),
            interval: Duration::from_secs(1) / rate.max(1),
            hasher: RandomState::new(),
            paid_at: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Returns whether `client` may make a request at `now`. If so, counts the request as `cost`
    /// requests. A request that costs more than the rate of one second takes that rate.
    pub fn admits(&self, client: impl Hash, cost: u32, now: Instant) -> bool {
        let now = nanos(now.saturating_duration_since(self.epoch));
        let slot = &self.paid_at[self.hasher.hash_one(client) as usize % SLOTS];
        let price = nanos(self.interval * cost).min(SECOND);
        let spend = |paid_at: u64| {
            let paid_at = paid_at.max(now) + price;
            (paid_at <= now + SECOND).then_some(paid_at)
        };
        slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
    }
}

/// Nanoseconds of `duration`; they fit for 584 years.
fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_requests_up_to_the_rate() {
        let limit = RateLimit::per_second(10);
        let start = limit.epoch;
        let admitted = |from: Instant| (0..50).filter(|_| limit.admits("client", 1, from)).count();
        assert_eq!(admitted(start), 10);
        assert_eq!(admitted(start + Duration::from_millis(100)), 1);
        assert_eq!(admitted(start + Duration::from_millis(450)), 3);
        assert_eq!(admitted(start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn each_client_has_its_own_rate() {
        let limit = RateLimit::per_second(1);
        let now = limit.epoch;
        assert!(limit.admits("a", 1, now) && !limit.admits("a", 1, now));
        // One client may share the slot of `a`, but not all of them can.
        assert!((0..64).any(|other| limit.admits(other, 1, now)));
    }

    #[test]
    fn a_request_counts_as_its_cost() {
        let limit = RateLimit::per_second(10);
        let start = limit.epoch;
        assert!(limit.admits("client", 8, start) && !limit.admits("client", 8, start));
        assert!(limit.admits("client", 2, start) && !limit.admits("client", 1, start));
        // More than the rate of a second takes that rate.
        let later = start + Duration::from_secs(1);
        assert!(limit.admits("client", 100, later) && !limit.admits("client", 1, later));
    }
}
