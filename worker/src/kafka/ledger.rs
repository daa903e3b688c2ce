//! Tracks finished offsets: out-of-order completion becomes a contiguous frontier. Pure.

use std::collections::{HashMap, VecDeque};

/// Proof that a record was received under an assignment. It has no effect once the partition is
/// revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) offset: i64,
}

/// The unfinished records and the frontier of each assigned partition.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    partitions: HashMap<i32, Partition>,
    epochs: u64,
}

#[derive(Debug)]
struct Partition {
    /// Distinguishes this assignment of the partition from earlier and later ones.
    epoch: u64,
    /// Offsets of received records, in ascending order, and whether each is finished.
    outstanding: VecDeque<(i64, bool)>,
    /// The next offset to read after a restart. None before the first record is finished.
    frontier: Option<i64>,
}

impl Ledger {
    /// Begins an assignment of `partition`.
    pub(super) fn assign(&mut self, partition: i32) {
        self.epochs += 1;
        let fresh = Partition {
            epoch: self.epochs,
            outstanding: VecDeque::new(),
            frontier: None,
        };
        self.partitions.insert(partition, fresh);
    }

    /// Ends the assignment of `partition`. Its tickets have no effect from now on.
    pub(super) fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Returns the epoch of the current assignment of `partition`. None if it is not assigned.
    pub(super) fn epoch(&self, partition: i32) -> Option<u64> {
        self.partitions.get(&partition).map(|held| held.epoch)
    }

    /// The number of assignments so far.
    pub(super) fn epochs(&self) -> u64 {
        self.epochs
    }

    /// Adds a record that was read under the assignment `epoch`. Returns none if that assignment
    /// has ended.
    ///
    /// Offsets arrive in ascending order, with gaps in a compacted topic. An offset that does not
    /// ascend means that the partition was truncated or recreated. The ledger then drops the
    /// records that it holds at this offset and above.
    pub(super) fn receive(&mut self, partition: i32, epoch: u64, offset: i64) -> Option<Ticket> {
        let held = self
            .partitions
            .get_mut(&partition)
            .filter(|held| held.epoch == epoch)?;
        while held
            .outstanding
            .back()
            .is_some_and(|(last, _)| *last >= offset)
        {
            held.outstanding.pop_back();
        }
        held.outstanding.push_back((offset, false));
        Some(Ticket {
            partition,
            epoch,
            offset,
        })
    }

    /// Marks records as finished. Returns each partition whose frontier moved, with its frontier.
    pub(super) fn finish(&mut self, tickets: &[Ticket]) -> Vec<(i32, i64)> {
        let mut moved = Vec::new();
        for ticket in tickets {
            let Some(held) = self
                .partitions
                .get_mut(&ticket.partition)
                .filter(|held| held.epoch == ticket.epoch)
            else {
                continue;
            };
            if let Ok(index) = held
                .outstanding
                .binary_search_by_key(&ticket.offset, |(offset, _)| *offset)
            {
                held.outstanding[index].1 = true;
            }
            let mut advanced = false;
            while let Some((offset, true)) = held.outstanding.front().copied() {
                held.outstanding.pop_front();
                held.frontier = Some(offset + 1);
                advanced = true;
            }
            if advanced && !moved.contains(&ticket.partition) {
                moved.push(ticket.partition);
            }
        }
        moved
            .into_iter()
            .filter_map(|partition| Some((partition, self.frontier(partition)?)))
            .collect()
    }

    /// Returns the next offset of `partition` to read after a restart. None before the first record
    /// is finished.
    pub(super) fn frontier(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.frontier
    }

    /// The number of received records of `partition` that are not finished.
    pub(super) fn outstanding(&self, partition: i32) -> usize {
        self.partitions.get(&partition).map_or(0, |held| {
            held.outstanding
                .iter()
                .filter(|(_, finished)| !finished)
                .count()
        })
    }

    /// The assigned partitions.
    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.partitions.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_offsets(offsets: &[i64]) -> (Ledger, Vec<Ticket>) {
        let mut ledger = Ledger::default();
        ledger.assign(0);
        let epoch = ledger.epoch(0).unwrap();
        let tickets = offsets
            .iter()
            .map(|offset| ledger.receive(0, epoch, *offset).unwrap())
            .collect();
        (ledger, tickets)
    }

    #[test]
    fn the_frontier_waits_for_the_lowest_offset() {
        let (mut ledger, tickets) = with_offsets(&[10, 11, 12]);
        assert!(ledger.finish(&[tickets[2]]).is_empty());
        assert!(ledger.finish(&[tickets[1]]).is_empty());
        assert_eq!(ledger.outstanding(0), 1);
        assert_eq!(ledger.finish(&[tickets[0]]), [(0, 13)]);
        assert_eq!(ledger.outstanding(0), 0);
    }

    #[test]
    fn gaps_are_skipped() {
        let (mut ledger, tickets) = with_offsets(&[5, 9, 100]);
        assert_eq!(ledger.finish(&tickets[..2]), [(0, 10)]);
        assert_eq!(ledger.finish(&tickets[2..]), [(0, 101)]);
    }

    #[test]
    fn a_truncated_partition_continues_at_the_lower_offset() {
        let (mut ledger, old) = with_offsets(&[100, 101]);
        let epoch = ledger.epoch(0).unwrap();
        let new = ledger.receive(0, epoch, 3).unwrap();
        assert!(ledger.finish(&old).is_empty());
        assert_eq!(ledger.finish(&[new]), [(0, 4)]);
    }

    #[test]
    fn a_ticket_of_an_earlier_assignment_has_no_effect() {
        let (mut ledger, old) = with_offsets(&[1, 2]);
        ledger.revoke(0);
        assert!(ledger.finish(&old).is_empty());
        ledger.assign(0);
        let epoch = ledger.epoch(0).unwrap();
        let new = ledger.receive(0, epoch, 1).unwrap();
        assert!(ledger.finish(&old).is_empty());
        assert_eq!(ledger.finish(&[new]), [(0, 2)]);
    }

    #[test]
    fn a_record_read_before_the_assignment_changed_is_dropped() {
        let (mut ledger, _) = with_offsets(&[]);
        let before = ledger.epoch(0).unwrap();
        ledger.revoke(0);
        assert!(ledger.receive(0, before, 7).is_none());
        ledger.assign(0);
        assert!(ledger.receive(0, before, 7).is_none());
    }

    #[test]
    fn the_frontier_is_contiguous_and_never_falls_in_any_order_of_completion() {
        use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let offsets: Vec<i64> = (0..50).map(|n| n * 2).collect();
            let (mut ledger, mut tickets) = with_offsets(&offsets);
            tickets.shuffle(&mut rng);
            let mut finished = Vec::new();
            let mut last = 0;
            for ticket in tickets {
                finished.push(ticket.offset);
                for (_, frontier) in ledger.finish(&[ticket]) {
                    assert!(frontier > last, "seed {seed}");
                    assert!(
                        offsets
                            .iter()
                            .all(|offset| *offset >= frontier || finished.contains(offset)),
                        "seed {seed}"
                    );
                    last = frontier;
                }
            }
            assert_eq!(last, 99, "seed {seed}");
        }
    }
}
