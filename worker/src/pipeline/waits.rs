//! What the pipeline waits for, and whether it makes progress otherwise.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// With lag and without a known wait, so long without progress means that the process is stuck.
const STALL: Duration = Duration::from_secs(30);

/// A known reason to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Postgres is down or busy.
    Postgres,
    /// Another session holds a lock.
    Lock,
    /// The deployment is wrong: no table, no right, no such database.
    Deployment,
    /// The dead letter topic does not take records.
    DeadLetterTopic,
    /// So many rows were refused that the reason is hardly the records.
    Breaker,
}

impl Wait {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::Postgres,
        Self::Lock,
        Self::Deployment,
        Self::DeadLetterTopic,
        Self::Breaker,
    ];

    /// Its name in a probe's answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Lock => "lock",
            Self::Deployment => "deployment",
            Self::DeadLetterTopic => "dead_letter_topic",
            Self::Breaker => "breaker",
        }
    }
}

/// Who waits for what, and when something was last finished.
pub struct Waits {
    counts: [AtomicUsize; Wait::ALL.len()],
    progress: Mutex<Instant>,
}

/// While it lives, somebody waits.
pub struct Waiting<'a> {
    waits: &'a Waits,
    wait: Wait,
}

impl Waits {
    /// Nobody waits.
    pub fn new() -> Self {
        Self {
            counts: Default::default(),
            progress: Mutex::new(Instant::now()),
        }
    }

    /// Begins to wait.
    pub fn begin(&self, wait: Wait) -> Waiting<'_> {
        self.counts[wait as usize].fetch_add(1, Ordering::Relaxed);
        Waiting { waits: self, wait }
    }

    /// Whether somebody waits for `wait`.
    pub fn waiting_for(&self, wait: Wait) -> bool {
        self.counts[wait as usize].load(Ordering::Relaxed) > 0
    }

    /// What is waited for.
    pub fn reasons(&self) -> impl Iterator<Item = Wait> {
        Wait::ALL.into_iter().filter(|wait| self.waiting_for(*wait))
    }

    /// Something was finished, or there is nothing to do.
    pub fn progressed(&self) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether nothing was finished for 30 s although nothing known was waited for.
    pub fn stalled(&self) -> bool {
        if self.reasons().next().is_some() {
            return false;
        }
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
            > STALL
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.counts[self.wait as usize].fetch_sub(1, Ordering::Relaxed);
        // Time spent waiting is not time without progress.
        self.waits.progressed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle_for(waits: &Waits, duration: Duration) {
        *waits.progress.lock().unwrap() = Instant::now().checked_sub(duration).unwrap();
    }

    #[test]
    fn a_known_wait_is_not_a_stall_and_neither_is_the_time_after_it() {
        let waits = Waits::new();
        idle_for(&waits, STALL + Duration::from_secs(1));
        assert!(waits.stalled());
        let waiting = waits.begin(Wait::Postgres);
        assert!(!waits.stalled());
        assert_eq!(waits.reasons().collect::<Vec<_>>(), [Wait::Postgres]);
        drop(waiting);
        assert!(!waits.stalled());
        assert!(waits.reasons().next().is_none());
    }
}
