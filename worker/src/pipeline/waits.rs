//! Known waits of the pipeline, and the time of its last progress.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// A known reason to wait. Its name in probes and metrics is in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Wait {
    /// Postgres is down or busy.
    Postgres,
    /// Another session holds a lock.
    Lock,
    /// The deployment is wrong: a missing table, right or database. A row that is at fault looks
    /// the same until Postgres stores another row.
    Deployment,
    /// The dead letter topic does not accept records.
    DeadLetterTopic,
    /// Postgres rejected so many rows that the records are unlikely to be the cause.
    Breaker,
    /// Every record is from the future, so a clock is wrong.
    Clock,
}

impl Wait {
    /// Returns its name in probes and metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The current waits, and the time of the last progress.
pub struct Waits {
    counts: [AtomicUsize; Wait::COUNT],
    /// Number of batches that wait for something that other batches may not need.
    held_up: AtomicUsize,
    progress: Mutex<Instant>,
}

/// A wait that goes on until this value is dropped.
pub struct Waiting<'a> {
    waits: &'a Waits,
    wait: Wait,
    batch: Option<&'a BatchWaits<'a>>,
}

/// The waits of one batch.
pub(super) struct BatchWaits<'a> {
    waits: &'a Waits,
    holding_up: AtomicUsize,
}

impl Waits {
    /// Creates a value without waits.
    pub fn new() -> Self {
        Self {
            counts: Default::default(),
            held_up: AtomicUsize::new(0),
            progress: Mutex::new(Instant::now()),
        }
    }

    /// Begins a wait.
    pub fn begin(&self, wait: Wait) -> Waiting<'_> {
        self.start(wait, None)
    }

    fn start<'a>(&'a self, wait: Wait, batch: Option<&'a BatchWaits<'a>>) -> Waiting<'a> {
        self.counts[wait as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(batch) = batch
            && batch.holding_up.fetch_add(1, Ordering::Relaxed) == 0
        {
            self.held_up.fetch_add(1, Ordering::Relaxed);
        }
        Waiting {
            waits: self,
            wait,
            batch,
        }
    }

    /// Creates the waits of a new batch.
    pub(super) fn batch(&self) -> BatchWaits<'_> {
        BatchWaits {
            waits: self,
            holding_up: AtomicUsize::new(0),
        }
    }

    /// Returns how many batches wait for something that other batches may not need.
    pub fn held_up(&self) -> usize {
        self.held_up.load(Ordering::Relaxed)
    }

    /// Returns the number of current waits of this kind.
    pub fn count(&self, wait: Wait) -> usize {
        self.counts[wait as usize].load(Ordering::Relaxed)
    }

    /// Returns whether there is a wait of this kind.
    pub fn waiting_for(&self, wait: Wait) -> bool {
        self.count(wait) > 0
    }

    /// Returns the reasons of the current waits.
    pub fn reasons(&self) -> impl Iterator<Item = Wait> {
        let all = Wait::VARIANTS.iter().copied();
        all.filter(|wait| self.waiting_for(*wait))
    }

    /// Returns the name of each reason to wait, and the number of its current waits.
    pub fn counts(&self) -> [(&'static str, usize); Wait::COUNT] {
        std::array::from_fn(|index| {
            let wait = Wait::VARIANTS[index];
            (wait.as_str(), self.count(wait))
        })
    }

    /// Notes that records were finished.
    pub fn progressed(&self) {
        *self.progress.lock() = Instant::now();
    }

    /// Returns how long the pipeline has made no progress. Zero while it has a known reason to
    /// wait.
    pub fn idle_for(&self) -> Duration {
        match self.reasons().next() {
            Some(_) => Duration::ZERO,
            None => self.progress.lock().elapsed(),
        }
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchWaits<'_> {
    /// Begins a wait that concerns every batch.
    pub(super) fn begin(&self, wait: Wait) -> Waiting<'_> {
        self.waits.start(wait, None)
    }

    /// Begins a wait that other batches may not share, so that they take the place of this one.
    pub(super) fn begin_alone(&self, wait: Wait) -> Waiting<'_> {
        self.waits.start(wait, Some(self))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.counts[self.wait as usize].fetch_sub(1, Ordering::Relaxed);
        if let Some(batch) = self.batch
            && batch.holding_up.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.waits.held_up.fetch_sub(1, Ordering::Relaxed);
        }
        // Time spent waiting does not count as time without progress.
        self.waits.progressed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_the_time_before_it_are_not_idle() {
        let waits = Waits::new();
        let hour = Duration::from_secs(3600);
        *waits.progress.lock() = Instant::now().checked_sub(hour).unwrap();
        assert!(waits.idle_for() >= hour);
        let waiting = waits.begin(Wait::Postgres);
        assert_eq!(waits.idle_for(), Duration::ZERO);
        assert_eq!(waits.reasons().collect::<Vec<_>>(), [Wait::Postgres]);
        drop(waiting);
        assert!(waits.idle_for() < hour);
        assert!(waits.reasons().next().is_none());
    }

    #[test]
    fn a_scrape_reports_every_reason() {
        let waits = Waits::new();
        let _waiting = (waits.begin(Wait::Clock), waits.begin(Wait::Clock));
        let expected = [
            ("postgres", 0),
            ("lock", 0),
            ("deployment", 0),
            ("dead_letter_topic", 0),
            ("breaker", 0),
            ("clock", 2),
        ];
        assert_eq!(waits.counts(), expected);
    }

    #[test]
    fn a_batch_with_several_waits_counts_once() {
        let waits = Waits::new();
        let (one, other) = (waits.batch(), waits.batch());
        let common = one.begin(Wait::Postgres);
        assert_eq!(waits.held_up(), 0);
        let first = one.begin_alone(Wait::Lock);
        let second = one.begin_alone(Wait::DeadLetterTopic);
        assert_eq!(waits.held_up(), 1);
        let third = other.begin_alone(Wait::Breaker);
        assert_eq!(waits.held_up(), 2);
        drop((common, first));
        assert_eq!(waits.held_up(), 2);
        drop((second, third));
        assert_eq!(waits.held_up(), 0);
    }
}
