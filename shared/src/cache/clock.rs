//! The clock of Redis.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Maximum round trip of a reading that is kept. A slower reading is used only once: it would make
/// rows look that much older, so none would be fresh enough to create an entry until the next
/// reading.
const PRECISE: Duration = Duration::from_millis(100);

/// How long a kept reading is used. The clock of Redis may be set, or another server may take over.
const KEPT: Duration = Duration::from_secs(5);

/// A reading of the Redis clock, and when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockReading {
    /// Milliseconds since 1970.
    pub(super) redis_ms: i64,
    /// When the reading arrived, which is not before Redis took it.
    pub(super) arrived: Instant,
}

impl ClockReading {
    /// Returns the time at Redis at the moment `then`, or an earlier time: Redis took the reading
    /// before it arrived.
    pub(super) fn at(self, then: Instant) -> i64 {
        let passed = match then.checked_duration_since(self.arrived) {
            Some(later) => later.as_millis() as i64,
            None => -(self.arrived.duration_since(then).as_millis() as i64) - 1,
        };
        self.redis_ms + passed
    }
}

/// The last reading that was precise enough to keep.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<ClockReading>>);

impl Clock {
    /// Keeps `reading` if it arrived soon enough after the request at `asked`.
    pub(super) fn keep(&self, reading: ClockReading, asked: Instant) {
        if reading.arrived.duration_since(asked) <= PRECISE {
            *self.0.lock() = Some(reading);
        }
    }

    /// Returns the kept reading if it is still valid at `now`.
    pub(super) fn reading(&self, now: Instant) -> Option<ClockReading> {
        self.0
            .lock()
            .filter(|kept| now.saturating_duration_since(kept.arrived) < KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn reading(redis_ms: i64, arrived: Instant) -> ClockReading {
        ClockReading { redis_ms, arrived }
    }

    #[test]
    fn a_reading_is_extrapolated_to_an_earlier_time_at_most() {
        let arrived = Instant::now() + 10 * MS;
        let reading = reading(1000, arrived);
        assert_eq!(reading.at(arrived), 1000);
        assert_eq!(reading.at(arrived + 7 * MS), 1007);
        // Rounds towards an earlier time, which is the safe side.
        assert_eq!(reading.at(arrived - 7 * MS), 992);
    }

    #[test]
    fn a_slow_reading_is_not_kept() {
        let (clock, asked) = (Clock::default(), Instant::now());
        assert_eq!(clock.reading(asked), None);
        let late = asked + PRECISE + MS;
        clock.keep(reading(1, late), asked);
        assert_eq!(clock.reading(late), None);
        let good = reading(2, asked + PRECISE);
        clock.keep(good, asked);
        assert_eq!(clock.reading(late), Some(good));
        clock.keep(reading(3, late), asked);
        assert_eq!(clock.reading(late), Some(good));
    }

    #[test]
    fn a_reading_expires_after_five_seconds() {
        let (clock, arrived) = (Clock::default(), Instant::now());
        clock.keep(reading(1, arrived), arrived);
        assert!(clock.reading(arrived + KEPT - MS).is_some());
        assert!(clock.reading(arrived + KEPT).is_none());
    }
}
