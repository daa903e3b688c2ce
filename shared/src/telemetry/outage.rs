//! Selects which failures of an outage are logged.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Interval between log lines during one outage.
const REMINDER: Duration = Duration::from_secs(60);

/// Selects the failures to log: the first of an outage, then one a minute.
#[derive(Debug, Default)]
pub struct OutageLog(Mutex<Option<Instant>>);

impl OutageLog {
    /// Records a failure. Returns whether to log it.
    pub fn failed(&self) -> bool {
        self.failed_at(Instant::now())
    }

    fn failed_at(&self, now: Instant) -> bool {
        let mut logged = self.0.lock();
        let is_due = logged.is_none_or(|then| now.saturating_duration_since(then) >= REMINDER);
        if is_due {
            *logged = Some(now);
        }
        is_due
    }

    /// Records a success. Returns whether it ends an outage.
    pub fn ended(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_and_then_once_a_minute() {
        let (log, start) = (OutageLog::default(), Instant::now());
        assert!(!log.ended());
        assert!(log.failed_at(start));
        assert!(!log.failed_at(start + Duration::from_secs(1)));
        assert!(log.failed_at(start + REMINDER));
        assert!(!log.failed_at(start + REMINDER + Duration::from_secs(59)));
        assert!(log.ended());
        assert!(!log.ended());
        assert!(log.failed_at(start + REMINDER + Duration::from_secs(59)));
    }
}
