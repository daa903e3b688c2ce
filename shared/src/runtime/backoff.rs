//! Exponential backoff with full jitter.

use std::time::Duration;

/// Shortest upper bound of a delay.
const FIRST: Duration = Duration::from_millis(50);
/// Longest upper bound of a delay, unless the caller sets a shorter one.
const LONGEST: Duration = Duration::from_secs(5);
/// The first failed attempt is logged, then every 12th.
const LOG_EVERY: u32 = 12;

/// Random delays between 0 and a bound that doubles from 50 ms to 5 s.
///
/// The jitter keeps replicas that failed together from retrying together.
#[derive(Debug)]
pub struct Backoff {
    attempts: u32,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Backoff {
    /// Creates delays whose bound stops doubling at `longest`.
    pub fn up_to(longest: Duration) -> Self {
        Self {
            attempts: 0,
            longest,
        }
    }

    /// Number of delays returned so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether to log the failed attempt before the next delay: the first, then every 12th.
    pub fn is_to_log(&self) -> bool {
        self.attempts.is_multiple_of(LOG_EVERY)
    }

    /// Returns the next delay.
    pub fn next_delay(&mut self) -> Duration {
        let bound = FIRST
            .saturating_mul(1 << self.attempts.min(7))
            .min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(fastrand::f64())
    }

    /// Waits for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_a_bound_that_grows_to_five_seconds() {
        let mut backoff = Backoff::default();
        for attempt in 0..40 {
            let bound = FIRST.saturating_mul(1 << attempt.min(7)).min(LONGEST);
            assert!(backoff.next_delay() <= bound);
        }
        assert_eq!(backoff.attempts(), 40);
    }

    #[test]
    fn a_shorter_bound_is_respected() {
        let longest = Duration::from_millis(80);
        let mut backoff = Backoff::up_to(longest);
        assert!((0..200).all(|_| backoff.next_delay() <= longest));
    }

    #[test]
    fn the_first_failed_attempt_and_every_twelfth_is_logged() {
        let mut backoff = Backoff::default();
        let logged: Vec<u32> = (0..30)
            .filter(|_| {
                let is_to_log = backoff.is_to_log();
                backoff.next_delay();
                is_to_log
            })
            .collect();
        assert_eq!(logged, [0, 12, 24]);
    }
}
