//! Detects records that Kafka deleted (retention, or an operator) before the group read them. Pure.
//!
//! A jump in the offsets alone proves nothing: compaction and transaction markers leave jumps too.
//! Skipped offsets count as lost if they are below the start of the log.

use std::{collections::HashMap, mem, ops::Range};

/// The next expected offset of each assigned partition, and the skipped ranges.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    partitions: HashMap<i32, Position>,
}

#[derive(Debug)]
struct Position {
    /// None before the first record, if the group has committed no offset.
    next: Option<i64>,
    /// Ranges skipped since the last check.
    jumps: Vec<Range<i64>>,
}

impl Gaps {
    /// Begins an assignment of `partition`. The group has finished every record below `committed`.
    pub(super) fn assign(&mut self, partition: i32, committed: Option<i64>) {
        let position = Position {
            next: committed,
            jumps: Vec::new(),
        };
        self.partitions.insert(partition, position);
    }

    /// Ends the assignment of `partition`.
    pub(super) fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Notes a polled record. An offset below the expected one is no gap: the partition was
    /// truncated or recreated.
    pub(super) fn received(&mut self, partition: i32, offset: i64) {
        if let Some(position) = self.partitions.get_mut(&partition) {
            if let Some(next) = position.next.filter(|next| *next < offset) {
                position.jumps.push(next..offset);
            }
            position.next = Some(offset + 1);
        }
    }

    /// Returns the ranges lost since the last check, given that the log of `partition` starts at
    /// `log_start`. `idle` means that the poll has returned every fetched record, so no record
    /// below `log_start` can follow.
    pub(super) fn check(&mut self, partition: i32, log_start: i64, idle: bool) -> Vec<Range<i64>> {
        let Some(position) = self.partitions.get_mut(&partition) else {
            return Vec::new();
        };
        let mut lost: Vec<Range<i64>> = mem::take(&mut position.jumps)
            .into_iter()
            .map(|jump| jump.start..jump.end.min(log_start))
            .filter(|jump| !jump.is_empty())
            .collect();
        if let Some(next) = position.next.filter(|next| idle && *next < log_start) {
            lost.push(next..log_start);
            position.next = Some(log_start);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(committed: Option<i64>) -> Gaps {
        let mut gaps = Gaps::default();
        gaps.assign(0, committed);
        gaps
    }

    /// Start and end of each lost range.
    fn lost(gaps: &mut Gaps, log_start: i64, idle: bool) -> Vec<(i64, i64)> {
        let lost = gaps.check(0, log_start, idle).into_iter();
        lost.map(|gap| (gap.start, gap.end)).collect()
    }

    #[test]
    fn records_deleted_before_the_assignment_are_lost() {
        let mut gaps = assigned(Some(10));
        gaps.received(0, 25);
        assert_eq!(lost(&mut gaps, 25, true), [(10, 25)]);
        assert!(lost(&mut gaps, 25, true).is_empty(), "once");
    }

    #[test]
    fn records_deleted_from_an_empty_log_are_lost() {
        let mut gaps = assigned(Some(10));
        // Fetched records may still be in the queue.
        assert!(lost(&mut gaps, 25, false).is_empty());
        assert_eq!(lost(&mut gaps, 25, true), [(10, 25)]);
        gaps.received(0, 25);
        assert!(lost(&mut gaps, 25, true).is_empty());
    }

    #[test]
    fn records_deleted_while_running_are_lost() {
        let mut gaps = assigned(Some(0));
        (0..5).for_each(|offset| gaps.received(0, offset));
        assert!(lost(&mut gaps, 3, true).is_empty(), "was read before");
        gaps.received(0, 9);
        gaps.received(0, 14);
        assert_eq!(lost(&mut gaps, 14, false), [(5, 9), (10, 14)]);
    }

    #[test]
    fn a_jump_above_the_start_of_the_log_is_no_gap() {
        let mut gaps = assigned(Some(0));
        gaps.received(0, 7);
        assert!(lost(&mut gaps, 0, true).is_empty());
        // Still no loss when the start of the log passes it later.
        assert!(lost(&mut gaps, 7, true).is_empty());
    }

    #[test]
    fn a_group_without_committed_offsets_has_no_gap() {
        let mut gaps = assigned(None);
        assert!(lost(&mut gaps, 40, true).is_empty());
        gaps.received(0, 40);
        assert!(lost(&mut gaps, 40, true).is_empty());
        gaps.received(0, 50);
        assert_eq!(lost(&mut gaps, 50, true), [(41, 50)]);
    }

    #[test]
    fn a_recreated_partition_has_lost_nothing() {
        let mut gaps = assigned(Some(500));
        gaps.received(0, 0);
        assert!(lost(&mut gaps, 0, true).is_empty());
        gaps.revoke(0);
        gaps.received(0, 9);
        assert!(lost(&mut gaps, 9, true).is_empty(), "no longer assigned");
    }
}
