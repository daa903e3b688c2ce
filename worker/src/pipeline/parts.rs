//! The parts of a batch that are not stored yet, and the reaction when Postgres rejects one.

use std::collections::VecDeque;

use shared::storage::{Change, ChangeSet, Class, StorageError};
use tokio::time::Instant;

use super::{retry::Retry, waits::BatchWaits};

/// After this many failures, a part that fails again while others pass is halved.
const PATIENCE: u32 = 3;

/// Changes that are written together.
pub(super) struct Part {
    pub(super) set: ChangeSet,
    failures: u32,
    /// Number of stored orders when its changes first failed.
    stored_before: Option<u64>,
    /// Whether it has never been halved.
    is_whole: bool,
}

/// What to do with a part that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Dead-letter its only change.
    Reject,
    /// Try its halves.
    Halve,
    /// Try it again later.
    Wait,
}

impl Part {
    /// Returns whether other orders were stored since it first failed. `stored` is the number of
    /// stored orders.
    pub(super) fn fails_alone(&self, stored: u64) -> bool {
        self.stored_before.is_some_and(|before| stored > before)
    }

    /// Decides what to do after a failure. `stored` is the number of stored orders at that time.
    ///
    /// - A row that is certainly at fault is rejected. A row that may be at fault is rejected once
    ///   Postgres has stored other orders.
    /// - A part with a row that may be at fault is halved, to find a row that passes.
    /// - A part that fails while others pass is halved, so that it does not hold back the rest of
    ///   its batch.
    pub(super) fn remedy(&self, class: Class, error: &StorageError, stored: u64) -> Remedy {
        let (single, alone) = (self.set.len() == 1, self.fails_alone(stored));
        let may_be_a_row = class == Class::Unknown || error.is_in_row();
        match class {
            Class::Record if single => Remedy::Reject,
            Class::Record => Remedy::Halve,
            Class::Unknown if single && alone => Remedy::Reject,
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
    /// Parts that have not failed; the last one is next.
    fresh: Vec<Part>,
    /// Parts that have failed; the first one is next.
    failed: VecDeque<Part>,
    waits: &'w BatchWaits<'w>,
    retry: Retry<'w>,
    /// When to retry the next failed part. Only one part is retried at a time.
    at: Instant,
}

impl<'w> Parts<'w> {
    pub(super) fn new(waits: &'w BatchWaits<'w>) -> Self {
        Self {
            fresh: Vec::new(),
            failed: VecDeque::new(),
            waits,
            retry: Retry::new("apply"),
            at: Instant::now(),
        }
    }

    /// Adds changes as a new part, as if they had never been tried.
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

    /// Returns the part to try next: first those that have not failed.
    pub(super) fn next(&mut self) -> Option<Part> {
        self.fresh.pop().or_else(|| self.failed.pop_front())
    }

    /// Returns when to retry `part`, or none if it has not failed.
    pub(super) fn not_before(&self, part: &Part) -> Option<Instant> {
        (part.failures > 0).then_some(self.at)
    }

    /// Notes that a part was stored or rejected. The next failed part may be retried at once.
    pub(super) fn passed(&mut self) {
        let parts = self.fresh.iter().chain(&self.failed);
        let is_any_left = parts.into_iter().any(|part| part.stored_before.is_some());
        self.retry.succeeded(is_any_left);
        self.at = Instant::now();
    }

    /// Queues `part` for a retry.
    pub(super) fn wait(&mut self, mut part: Part, error: &StorageError, stored: u64) {
        part.stored_before.get_or_insert(stored);
        part.failures += 1;
        let alone = part.fails_alone(stored);
        self.at = Instant::now() + self.retry.part_failed(self.waits, error, alone);
        // Parts that can still be halved go first, the newest one in front: the smaller a part, the
        // sooner it passes if any row does.
        match part.set.len() {
            1 => self.failed.push_back(part),
            _ => self.failed.push_front(part),
        }
    }

    /// Queues both halves of `part` to be tried at once. A half that cannot be stored does not
    /// delay the other.
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

    /// Removes and returns all changes.
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

    fn parts_of<'w>(set: ChangeSet, waits: &'w BatchWaits<'w>) -> Parts<'w> {
        let mut parts = Parts::new(waits);
        parts.push_new(set);
        parts
    }

    fn error(code: &str, in_row: bool) -> StorageError {
        StorageError::Database {
            code: code.to_owned(),
            constraint: None,
            in_row,
            object: None,
        }
    }

    fn remedy(part: &Part, error: &StorageError, stored: u64) -> Remedy {
        part.remedy(error.class(), error, stored)
    }

    #[test]
    fn a_row_that_may_be_at_fault_is_rejected_once_others_pass() {
        let waits = Waits::new();
        let batch = waits.batch();
        let mut parts = parts_of(set(1), &batch);
        let unknown = error("XX000", false);
        let part = parts.next().unwrap();
        assert_eq!(remedy(&part, &error("P0001", true), 7), Remedy::Reject);
        assert_eq!(remedy(&part, &unknown, 7), Remedy::Wait);
        parts.wait(part, &unknown, 7);
        assert_eq!(waits.reasons().collect::<Vec<_>>(), [Wait::Deployment]);
        let part = parts.next().unwrap();
        assert_eq!(remedy(&part, &unknown, 7), Remedy::Wait, "none passed");
        assert_eq!(remedy(&part, &unknown, 8), Remedy::Reject);
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
    fn the_other_half_is_tried_before_a_failed_one() {
        let waits = Waits::new();
        let batch = waits.batch();
        let mut parts = parts_of(set(8), &batch);
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

    /// If neither half of a batch passes, a smaller part may.
    #[test]
    fn while_no_row_passes_every_row_is_retried_alone() {
        for unknown in [error("XX000", false), error("57014", true)] {
            let waits = Waits::new();
            let batch = waits.batch();
            let mut parts = parts_of(set(8), &batch);
            let mut singles = Vec::new();
            while singles.len() < 16 {
                let part = parts.next().unwrap();
                if let [row] = part.set.as_slice() {
                    singles.push(row.uid);
                }
                match remedy(&part, &unknown, 0) {
                    Remedy::Halve => parts.halve(part, 0),
                    Remedy::Wait => parts.wait(part, &unknown, 0),
                    Remedy::Reject => panic!("none passed"),
                }
            }
            singles.sort();
            singles.dedup();
            assert_eq!(singles.len(), 8);
            assert_eq!(waits.held_up(), 1);
        }
    }

    #[test]
    fn a_part_that_keeps_failing_is_halved_and_retried() {
        let waits = Waits::new();
        let batch = waits.batch();
        let mut parts = parts_of(set(2), &batch);
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
