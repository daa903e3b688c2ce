//! Stops dead-lettering when Postgres rejects many rows.
//!
//! Many rejected rows point to a bad deployment, not to bad records. Without the breaker, a bad
//! deployment would move the whole topic to the dead letter topic.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Number of newest rows that the breaker looks at.
const WINDOW: usize = 1000;
/// More rejected rows than this in a full window open the breaker.
const MAX_IN_WINDOW: usize = WINDOW / 20;
/// This many rejected rows in a row open the breaker, even before the window is full.
const MAX_IN_A_ROW: usize = 100;

/// How long an open breaker waits between trials of one row.
const TRIAL_INTERVAL: Duration = Duration::from_secs(30);

/// Counts the rows that Postgres accepts and rejects.
pub struct RejectionBreaker {
    state: Mutex<State>,
    stored: AtomicU64,
    trial_interval: Duration,
    /// When the next trial may start. Batches that are held up try one row at a time.
    turn: tokio::sync::Mutex<Instant>,
}

/// The right to try one row while the breaker is open.
pub(super) struct Trial<'a> {
    turn: tokio::sync::MutexGuard<'a, Instant>,
    interval: Duration,
}

impl Trial<'_> {
    /// Delays the next trial, because Postgres rejected the row with the code `sqlstate`.
    pub(super) fn failed(mut self, sqlstate: &str) {
        tracing::warn!(sqlstate, "Postgres rejects the trial row too");
        *self.turn = Instant::now() + self.interval;
    }
}

struct State {
    open: bool,
    /// The newest rows; true if Postgres rejected the row.
    window: VecDeque<bool>,
    rejected: usize,
    in_a_row: usize,
}

impl RejectionBreaker {
    /// Creates a breaker that is closed, or `open` until a first trial succeeds. A worker starts it
    /// open if the newest dead letters are rows that Postgres rejected. Otherwise repeated restarts
    /// would empty the topic in steps.
    pub fn new(open: bool) -> Self {
        Self::trying_every(TRIAL_INTERVAL, open)
    }

    /// Creates a breaker as [`RejectionBreaker::new`] does, with another pause between trials.
    pub fn trying_every(trial_interval: Duration, open: bool) -> Self {
        let state = State {
            open,
            window: VecDeque::with_capacity(WINDOW),
            rejected: 0,
            in_a_row: 0,
        };
        Self {
            state: Mutex::new(state),
            stored: AtomicU64::new(0),
            trial_interval,
            turn: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    /// Waits for the right to try one row; returns none once the breaker is closed. If the breaker
    /// starts open, the first trial is immediate.
    pub(super) async fn trial(&self) -> Option<Trial<'_>> {
        let turn = self.turn.lock().await;
        if !self.is_open() {
            return None;
        }
        sleep_until(*turn).await;
        Some(Trial {
            turn,
            interval: self.trial_interval,
        })
    }

    /// Returns whether the breaker is open. Then the worker writes only single trials and
    /// dead-letters no rejected row.
    pub fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Returns how many orders were stored. While Postgres rejects a row, this number shows whether
    /// it accepts others. Changes that lose to a newer version, and erasures, do not count: they
    /// need less of the schema than an order.
    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// Counts `rows` that Postgres accepted, `stored` of which are orders that were stored; closes
    /// the breaker.
    pub fn accepted(&self, rows: usize, stored: usize) {
        self.stored.fetch_add(stored as u64, Relaxed);
        let mut state = self.state.lock();
        if state.open {
            tracing::info!("Postgres accepts rows again; breaker closed");
            state.window.clear();
            (state.open, state.rejected) = (false, 0);
        }
        state.in_a_row = 0;
        (0..rows.min(WINDOW)).for_each(|_| state.count(false));
    }

    /// Counts a row that Postgres rejected with the code `sqlstate`. Returns false if that opens
    /// the breaker, or if it is already open; then the row must not be dead-lettered.
    pub fn rejected(&self, sqlstate: &str) -> bool {
        let mut state = self.state.lock();
        if !state.open {
            state.in_a_row += 1;
            state.count(true);
            state.open = state.in_a_row >= MAX_IN_A_ROW
                || (state.window.len() == WINDOW && state.rejected > MAX_IN_WINDOW);
            if state.open {
                self.delay_first_trial();
                tracing::error!(
                    sqlstate,
                    in_a_row = state.in_a_row,
                    of_the_last_1000 = state.rejected,
                    runbook = "WorkerStopped",
                    "Postgres rejects too many rows; breaker opened"
                );
            }
        }
        !state.open
    }

    /// Delays the first trial, unless a batch holds the turn: it is about to try a row anyway.
    fn delay_first_trial(&self) {
        if let Ok(mut turn) = self.turn.try_lock() {
            *turn = Instant::now() + self.trial_interval;
        }
    }
}

impl State {
    fn count(&mut self, rejected: bool) {
        if self.window.len() == WINDOW && self.window.pop_front() == Some(true) {
            self.rejected -= 1;
        }
        self.window.push_back(rejected);
        self.rejected += usize::from(rejected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_in_a_row_open_it() {
        let breaker = RejectionBreaker::new(false);
        for _ in 1..MAX_IN_A_ROW {
            assert!(breaker.rejected("23514"));
        }
        assert!(!breaker.rejected("23514"));
        assert!(breaker.is_open());
    }

    #[test]
    fn more_than_a_twentieth_of_the_last_thousand_opens_it() {
        let breaker = RejectionBreaker::new(false);
        breaker.accepted(WINDOW, 0);
        for _ in 0..MAX_IN_WINDOW {
            assert!(breaker.rejected("23514"));
            breaker.accepted(1, 0);
        }
        assert!(!breaker.rejected("23514"));
    }

    #[test]
    fn few_rejections_among_many_do_not_open_it() {
        let breaker = RejectionBreaker::new(false);
        for _ in 0..1000 {
            assert!(breaker.rejected("23514"));
            breaker.accepted(99, 0);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn old_rejections_leave_the_window() {
        let breaker = RejectionBreaker::new(false);
        for _ in 0..MAX_IN_WINDOW {
            assert!(breaker.rejected("23514"));
        }
        breaker.accepted(WINDOW, 0);
        assert!(breaker.rejected("23514"));
    }

    #[test]
    fn one_accepted_row_closes_it_and_clears_the_window() {
        let breaker = RejectionBreaker::new(true);
        assert!(breaker.is_open());
        assert!(!breaker.rejected("23514"));
        breaker.accepted(1, 0);
        assert!(!breaker.is_open());
        assert!(breaker.rejected("23514"));
    }
}
