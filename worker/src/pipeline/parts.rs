//! The parts of a batch that are not stored yet, and what is done about one that Postgres rejects.

use std::collections::VecDeque;

use shared::storage::{Change, ChangeSet, Class, StorageError};
use tokio::time::Instant;

use super::{retry::Retry, waits::BatchWaits};

/// So many failures of a part while others pass are its own: then it is halved.
const PATIENCE: u32 = 3;

/// Changes that are written together.
pub(super) struct Part {
    pub(super) set: ChangeSet,
    failures: u32,
    /// How many orders were stored before its changes failed for the first time.
    stored_before: Option<u64>,
    /// Nothing was split off yet.
    is_whole: bool,
}

/// What to do about a part that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Dead-letter its only change.
    Refuse,
    /// Try its halves.
    Halve,
    /// Try it again later.
    Wait,
}

impl Part {
    /// Whether other orders were stored since it failed first, of `stored` ones in all.
    pub(super) fn fails_alone(&self, stored: u64) -> bool {
        self.stored_before.is_some_and(|before| stored > before)
    }

    /// Decides about a failure that came when `stored` orders were stored.
    ///
    /// A row that is certainly at fault is refused, one that may be is refused once Postgres has stored others. What may be
    /// the fault of a row is halved to find a row that passes, and what fails alone so that it keeps none of the rest of its
    /// batch.
    pub(super) fn remedy(&self, class: Class, error: &StorageError, stored: u64) -> Remedy {
        let (single, alone) = (self.set.len() == 1, self.fails_alone(stored));
        let may_be_a_row = class == Class::Unknown || error.is_in_row();
        match class {
            Class::Record if single => Remedy::Refuse,
            Class::Record => Remedy::Halve,
            Class::Unknown if single && alone => Remedy::Refuse,
            _ if single => Remedy::Wait,
            _ if may_be_a_row && (alone || self.is_whole || self.failures > 0) => Remedy::Halve,
            Class::Deployment if alone => Remedy::Halve,
            Class::Transient | Class::Locked | Class::StalePlan | Class::Rival
                if alone && self.failures >= PATIENCE =>
            {
                Remedy::Halve
            }
            Class::Transient
            | Class::Locked
            | Class::StalePlan
            | Class::Rival
            | Class::Deployment
            | Class::Unknown => Remedy::Wait,
        }
    }
}

/// The parts of one batch.
pub(super) struct Parts<'w> {
    /// Have not failed; the last one is next.
    fresh: Vec<Part>,
    /// Have failed; the first one is next.
    failed: VecDeque<Part>,
    waits: &'w BatchWaits<'w>,
    retry: Retry<'w>,
    /// When the next one that failed is tried: one at a time, however many there are.
    at: Instant,
}

impl<'w> Parts<'w> {
    pub(super) fn of(set: ChangeSet, waits: &'w BatchWaits<'w>) -> Self {
        let mut parts = Self {
            fresh: Vec::new(),
            failed: VecDeque::new(),
            waits,
            retry: Retry::new("apply"),
            at: Instant::now(),
        };
        parts.push_new(set);
        parts
    }

    /// Adds changes of which nothing is known.
    pub(super) fn push_new(&mut self, set: ChangeSet) {
        if !set.is_empty() {
            self.fresh.push(Part {
                set,
                failures: 0,
                stored_before: None,
                is_whole: true,
            });
        }
    }

    /// The part to try next: those that have not failed come first.
    pub(super) fn next(&mut self) -> Option<Part> {
        self.fresh.pop().or_else(|| self.failed.pop_front())
    }

    /// When to try `part`, if it has failed before.
    pub(super) fn not_before(&self, part: &Part) -> Option<Instant> {
        (part.failures > 0).then_some(self.at)
    }

    /// A part was stored or refused: no other one that failed has to wait any longer.
    pub(super) fn passed(&mut self) {
        let parts = self.fresh.iter().chain(&self.failed);
        let is_any_left = parts.into_iter().any(|part| part.stored_before.is_some());
        self.retry.succeeded(is_any_left);
        self.at = Instant::now();
    }

    /// Tries `part` again later.
    pub(super) fn wait(&mut self, mut part: Part, error: &StorageError, stored: u64) {
        part.stored_before.get_or_insert(stored);
        part.failures += 1;
        let alone = part.fails_alone(stored);
        self.at = Instant::now() + self.retry.part_failed(self.waits, error, alone);
        // Halves of halves first: the smaller a part, the sooner it passes if any row does.
        match part.set.len() {
            1 => self.failed.push_back(part),
            _ => self.failed.push_front(part),
        }
    }

    /// Tries both halves of `part` at once: one that cannot be stored never keeps the other from being tried.
    pub(super) fn halve(&mut self, part: Part, stored: u64) {
        let stored_before = part.stored_before.or(Some(stored));
        let (left, right) = part.set.halve();
        self.fresh.extend([right, left].map(|set| Part {
            set,
            failures: 0,
            stored_before,
            is_whole: false,
        }));
    }

    /// Takes every change out.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let parts = self.fresh.drain(..).chain(self.failed.drain(..));
        let changes = parts.flat_map(|part| part.set.into_vec()).collect();
        self.retry.succeeded(false);
        changes
    }
}

#[cfg(test)]
mod tests {
    use shared::order::{OrderUid, Version};

    use super::*;
    use crate::pipeline::waits::{Wait, Waits};

    fn set(count: i64) -> ChangeSet {
        let change = |n: i64| Change {
            uid: OrderUid::parse(&format!("u{n}")).unwrap(),
            version: Version::new(1, n, 0),
            order: None,
        };
        ChangeSet::new((0..count).map(change).collect()).0
    }

    fn error(code: &str, in_row: bool) -> StorageError {
        StorageError::Database {
            code: code.to_owned(),
            constraint: None,
            in_row,
        }
    }

    fn remedy(part: &Part, error: &StorageError, stored: u64) -> Remedy {
        part.remedy(error.class(), error, stored)
    }

    #[test]
    fn a_row_that_may_be_at_fault_is_refused_once_others_pass() {
        let waits = Waits::new();
        let batch = waits.batch();
        let mut parts = Parts::of(set(1), &batch);
        let unknown = error("XX000", false);
        let part = parts.next().unwrap();
        assert_eq!(remedy(&part, &error("P0001", true), 7), Remedy::Refuse);
        assert_eq!(remedy(&part, &unknown, 7), Remedy::Wait);
        parts.wait(part, &unknown, 7);
        assert_eq!(waits.reasons().collect::<Vec<_>>(), [Wait::Deployment]);
        let part = parts.next().unwrap();
        assert_eq!(remedy(&part, &unknown, 7), Remedy::Wait, "none passed");
        assert_eq!(remedy(&part, &unknown, 8), Remedy::Refuse);
        for code in ["42501", "57014", "55P03", "40001"] {
            assert_eq!(
                remedy(&part, &error(code, false), 8),
                Remedy::Wait,
                "{code}"
            );
        }
        drop((part, parts));
        assert_eq!(waits.reasons().count(), 0);
    }

    #[test]
    fn the_other_half_is_tried_before_one_that_failed() {
        let waits = Waits::new();
        let batch = waits.batch();
        let mut parts = Parts::of(set(8), &batch);
        let unknown = error("XX000", false);
        let whole = parts.next().unwrap();
        assert_eq!(remedy(&whole, &unknown, 0), Remedy::Halve);
        parts.halve(whole, 0);
        let left = parts.next().unwrap();
        assert_eq!(remedy(&left, &unknown, 0), Remedy::Wait);
        let first = left.set.as_slice()[0].uid;
        parts.wait(left, &unknown, 0);
        let right = parts.next().unwrap();
        assert_ne!(right.set.as_slice()[0].uid, first);
        assert_eq!(parts.not_before(&right), None);
        parts.passed();
        assert!(waits.waiting_for(Wait::Deployment), "of the left one");
        let left = parts.next().unwrap();
        assert!(parts.not_before(&left).is_some());
        assert_eq!(remedy(&left, &unknown, 4), Remedy::Halve);
        parts.passed();
        assert!(!waits.waiting_for(Wait::Deployment));
        assert!(parts.next().is_none());
    }

    /// Where no row of either half of a batch passes with its half, one may pass with less.
    #[test]
    fn every_row_is_tried_alone_while_none_passes_and_at_last_over_and_over() {
        for unknown in [error("XX000", false), error("57014", true)] {
            let waits = Waits::new();
            let batch = waits.batch();
            let mut parts = Parts::of(set(8), &batch);
            let mut singles = Vec::new();
            while singles.len() < 16 {
                let part = parts.next().unwrap();
                if let [row] = part.set.as_slice() {
                    singles.push(row.uid);
                }
                match remedy(&part, &unknown, 0) {
                    Remedy::Halve => parts.halve(part, 0),
                    Remedy::Wait => parts.wait(part, &unknown, 0),
                    Remedy::Refuse => panic!("none passed"),
                }
            }
            singles.sort();
            singles.dedup();
            assert_eq!(singles.len(), 8);
            assert_eq!(waits.held_up(), 1);
        }
    }

    #[test]
    fn what_fails_alone_again_and_again_is_halved_and_still_waited_for() {
        let waits = Waits::new();
        let batch = waits.batch();
        let mut parts = Parts::of(set(2), &batch);
        let locked = error("55P03", false);
        for failures in 0..PATIENCE {
            let part = parts.next().unwrap();
            assert_eq!(remedy(&part, &locked, 9), Remedy::Wait, "{failures}");
            parts.wait(part, &locked, u64::from(failures > 0));
        }
        let part = parts.next().unwrap();
        assert!(part.fails_alone(9));
        assert_eq!(remedy(&part, &locked, 9), Remedy::Halve);
        parts.halve(part, 9);
        assert_eq!(waits.reasons().collect::<Vec<_>>(), [Wait::Lock]);
    }
}
