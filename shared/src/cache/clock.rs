//! What time it is at Redis.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A reading whose answer took longer is used once and not kept: all that is written by it would count as that much older,
/// and nothing would be fresh enough to make an entry until the next reading.
const PRECISE: Duration = Duration::from_millis(100);

/// A kept reading serves for so long: the clock of Redis may be set, or another server may take over.
const KEPT: Duration = Duration::from_secs(5);

/// What the clock of Redis said, and when it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Milliseconds since 1970.
    pub(super) redis_ms: i64,
    /// No earlier than it was said.
    pub(super) heard: Instant,
}

impl Reading {
    /// The time at Redis at the moment `then`, or an earlier one: Redis said its time before it was heard.
    pub(super) fn at(self, then: Instant) -> i64 {
        let passed = match then.checked_duration_since(self.heard) {
            Some(later) => later.as_millis() as i64,
            None => -(self.heard.duration_since(then).as_millis() as i64) - 1,
        };
        self.redis_ms + passed
    }
}

/// The last reading that is worth keeping.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<Reading>>);

impl Clock {
    /// Takes a reading in that was asked for at `asked`.
    pub(super) fn hear(&self, reading: Reading, asked: Instant) {
        if reading.heard.duration_since(asked) <= PRECISE {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
        }
    }

    /// A reading that serves at the moment `now`.
    pub(super) fn reading(&self, now: Instant) -> Option<Reading> {
        let kept = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.filter(|kept| now.saturating_duration_since(kept.heard) < KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn reading(redis_ms: i64, heard: Instant) -> Reading {
        Reading { redis_ms, heard }
    }

    #[test]
    fn time_passes_at_redis_as_it_does_here() {
        let heard = Instant::now() + 10 * MS;
        let reading = reading(1000, heard);
        assert_eq!(reading.at(heard), 1000);
        assert_eq!(reading.at(heard + 7 * MS), 1007);
        // Rather too early than too late.
        assert_eq!(reading.at(heard - 7 * MS), 992);
    }

    #[test]
    fn an_answer_that_took_long_is_not_kept() {
        let (clock, asked) = (Clock::default(), Instant::now());
        assert_eq!(clock.reading(asked), None);
        let late = asked + PRECISE + MS;
        clock.hear(reading(1, late), asked);
        assert_eq!(clock.reading(late), None);
        let good = reading(2, asked + PRECISE);
        clock.hear(good, asked);
        assert_eq!(clock.reading(late), Some(good));
        clock.hear(reading(3, late), asked);
        assert_eq!(clock.reading(late), Some(good));
    }

    #[test]
    fn a_reading_serves_for_some_seconds() {
        let (clock, heard) = (Clock::default(), Instant::now());
        clock.hear(reading(1, heard), heard);
        assert!(clock.reading(heard + KEPT - MS).is_some());
        assert!(clock.reading(heard + KEPT).is_none());
    }
}
