//! Stops before a bad deployment empties the topic into the dead letters: many rows that the database refuses are hardly
//! the records' fault.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Once so many rows are known, the last of them count,
const WINDOW: usize = 1000;
/// and more than so many refused ones among them open the breaker;
const MAX_IN_WINDOW: usize = WINDOW / 20;
/// so do so many in a row, from the first.
const MAX_IN_A_ROW: usize = 100;

/// How long an open breaker waits before it lets a row be tried.
const TRIAL_INTERVAL: Duration = Duration::from_secs(30);

/// Counts what the database accepts and refuses.
pub struct Breaker {
    state: Mutex<State>,
    stored: AtomicU64,
    trial_interval: Duration,
    /// Batches that are held up try a row one after the other.
    turn: tokio::sync::Mutex<Instant>,
}

/// The right to try one row while the breaker is open.
pub(super) struct Trial<'a> {
    turn: tokio::sync::MutexGuard<'a, Instant>,
    interval: Duration,
}

impl Trial<'_> {
    /// The row was refused with the code `sqlstate`: the next trial is a while away.
    pub(super) fn failed(mut self, sqlstate: &str) {
        tracing::warn!(sqlstate, "the database refuses the row that was tried, too");
        *self.turn = Instant::now() + self.interval;
    }
}

struct State {
    open: bool,
    /// True for refused.
    window: VecDeque<bool>,
    refused: usize,
    in_a_row: usize,
}

impl Breaker {
    /// A closed breaker, or, when the newest dead letters are rows that the database refused, one that is open until a
    /// first trial succeeds: restarts must not empty the topic in steps.
    pub fn new(open: bool) -> Self {
        Self::trying_every(TRIAL_INTERVAL, open)
    }

    /// As [`Breaker::new`], with another pause between trials.
    pub fn trying_every(trial_interval: Duration, open: bool) -> Self {
        let state = State {
            open,
            window: VecDeque::with_capacity(WINDOW),
            refused: 0,
            in_a_row: 0,
        };
        Self {
            state: Mutex::new(state),
            stored: AtomicU64::new(0),
            trial_interval,
            turn: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    /// Waits for the right to try one row; none once the breaker is closed. The first trial of a breaker that starts
    /// open comes at once.
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

    /// Whether nothing but single trials may be written, and nothing dead-lettered as refused.
    pub fn is_open(&self) -> bool {
        self.lock().open
    }

    /// How many orders were stored. While a row is rejected this shows whether others pass: what only loses to a newer
    /// version, and an erasure, need less of the schema than an order does.
    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// Counts `rows` that were accepted, `stored` of which are orders that were stored; closes the breaker.
    pub fn accepted(&self, rows: usize, stored: usize) {
        self.stored.fetch_add(stored as u64, Relaxed);
        let mut state = self.lock();
        if state.open {
            tracing::info!("the database accepts rows again; the breaker closes");
            state.window.clear();
            (state.open, state.refused) = (false, 0);
        }
        state.in_a_row = 0;
        (0..rows.min(WINDOW)).for_each(|_| state.count(false));
    }

    /// Counts a row that was refused with the code `sqlstate`. False when that opens the breaker, or it is open: then the row
    /// is not to be dead-lettered.
    pub fn refused(&self, sqlstate: &str) -> bool {
        let mut state = self.lock();
        if !state.open {
            state.in_a_row += 1;
            state.count(true);
            state.open = state.in_a_row >= MAX_IN_A_ROW
                || (state.window.len() == WINDOW && state.refused > MAX_IN_WINDOW);
            if state.open {
                self.delay_first_trial();
                tracing::error!(
                    sqlstate,
                    in_a_row = state.in_a_row,
                    of_the_last_1000 = state.refused,
                    "the database refuses too many rows for that to be the records' fault; nothing is dead-lettered, one row is tried every 30 s"
                );
            }
        }
        !state.open
    }

    /// Whoever holds the turn at this moment is about to try a row anyway.
    fn delay_first_trial(&self) {
        if let Ok(mut turn) = self.turn.try_lock() {
            *turn = Instant::now() + self.trial_interval;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, refused: bool) {
        if self.window.len() == WINDOW && self.window.pop_front() == Some(true) {
            self.refused -= 1;
        }
        self.window.push_back(refused);
        self.refused += usize::from(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_in_a_row_open_it() {
        let breaker = Breaker::new(false);
        for _ in 1..MAX_IN_A_ROW {
            assert!(breaker.refused("23514"));
        }
        assert!(!breaker.refused("23514"));
        assert!(breaker.is_open());
    }

    #[test]
    fn more_than_a_twentieth_of_the_last_thousand_opens_it() {
        let breaker = Breaker::new(false);
        breaker.accepted(WINDOW, 0);
        for _ in 0..MAX_IN_WINDOW {
            assert!(breaker.refused("23514"));
            breaker.accepted(1, 0);
        }
        assert!(!breaker.refused("23514"));
    }

    #[test]
    fn few_among_many_do_not() {
        let breaker = Breaker::new(false);
        for _ in 0..1000 {
            assert!(breaker.refused("23514"));
            breaker.accepted(99, 0);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn old_refusals_leave_the_window() {
        let breaker = Breaker::new(false);
        for _ in 0..MAX_IN_WINDOW {
            assert!(breaker.refused("23514"));
        }
        breaker.accepted(WINDOW, 0);
        assert!(breaker.refused("23514"));
    }

    #[test]
    fn one_accepted_row_closes_it_with_a_clean_slate() {
        let breaker = Breaker::new(true);
        assert!(breaker.is_open());
        assert!(!breaker.refused("23514"));
        breaker.accepted(1, 0);
        assert!(!breaker.is_open());
        assert!(breaker.refused("23514"));
    }
}
