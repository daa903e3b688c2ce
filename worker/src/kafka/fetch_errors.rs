//! Partitions that cannot be read although brokers answer, for example because the next batch
//! cannot be unpacked. Pure.
//!
//! librdkafka retries such a fetch twice a second without end, and reports the error without the
//! partition. The statistics show which partition has records to fetch and does not move.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// Number of checks with an error after which a partition that does not move is unreadable. Checks
/// run once a second, so a single error that a retry overcomes does not count.
const CHECKS: u32 = 3;

/// A partition as the statistics show it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetching {
    pub(super) partition: i32,
    /// The next offset to fetch. Negative before the first fetch.
    pub(super) next: i64,
    /// The offset after the last record that can be fetched.
    pub(super) end: i64,
    /// Whether the poll has returned every fetched record.
    pub(super) idle: bool,
}

/// A partition that became unreadable, or readable again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Failing {
        partition: i32,
        offset: i64,
        codes: String,
    },
    Recovered {
        partition: i32,
        /// The offset that could not be read.
        offset: i64,
    },
}

/// Fetch errors, and the position of each assigned partition.
#[derive(Debug, Default)]
pub(super) struct FetchErrors {
    /// Error codes since the last check.
    recent: BTreeSet<String>,
    partitions: BTreeMap<i32, Standstill>,
}

/// The position of a partition, and the checks with errors since it last moved.
#[derive(Debug)]
struct Standstill {
    next: i64,
    checks: u32,
    codes: BTreeSet<String>,
}

impl Standstill {
    fn is_failing(&self) -> bool {
        self.checks >= CHECKS
    }

    fn codes(&self) -> String {
        let codes: Vec<&str> = self.codes.iter().map(String::as_str).collect();
        codes.join(",")
    }
}

impl FetchErrors {
    /// Notes an error code that does not belong to an outage.
    pub(super) fn failed(&mut self, code: String) {
        self.recent.insert(code);
    }

    /// Checks all assigned partitions. Returns the changes since the last check.
    pub(super) fn check(&mut self, partitions: impl IntoIterator<Item = Fetching>) -> Vec<Change> {
        let codes = mem::take(&mut self.recent);
        let mut before = mem::take(&mut self.partitions);
        let mut changes = Vec::new();
        for fetching in partitions {
            let standstill = before.remove(&fetching.partition);
            self.check_one(fetching, standstill, &codes, &mut changes);
        }
        changes
    }

    fn check_one(
        &mut self,
        now: Fetching,
        before: Option<Standstill>,
        codes: &BTreeSet<String>,
        changes: &mut Vec<Change>,
    ) {
        let partition = now.partition;
        let is_behind = now.next >= 0 && now.next < now.end;
        let mut standstill = match before {
            Some(before) if is_behind && before.next == now.next => before,
            other => {
                if let Some(ended) = other.filter(Standstill::is_failing) {
                    let offset = ended.next;
                    changes.push(Change::Recovered { partition, offset });
                }
                Standstill {
                    next: now.next,
                    checks: 0,
                    codes: BTreeSet::new(),
                }
            }
        };
        // While the queue holds records, a standstill is normal: librdkafka may not fetch more yet.
        // The error itself also passes through that queue.
        if is_behind && now.idle && !codes.is_empty() {
            standstill.checks += 1;
            standstill.codes.extend(codes.iter().cloned());
            if standstill.checks == CHECKS {
                changes.push(Change::Failing {
                    partition,
                    offset: now.next,
                    codes: standstill.codes(),
                });
            }
        }
        self.partitions.insert(partition, standstill);
    }

    /// Returns the unreadable partitions, each with its error codes.
    pub(super) fn failing(&self) -> BTreeMap<i32, String> {
        let failing = self.partitions.iter().filter(|(_, held)| held.is_failing());
        failing
            .map(|(partition, held)| (*partition, held.codes()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32, next: i64, end: i64) -> Fetching {
        Fetching {
            partition,
            next,
            end,
            idle: true,
        }
    }

    /// Reports an error, then checks partition 0, which moves, and `stuck`.
    fn check(errors: &mut FetchErrors, second: i64, stuck: Fetching) -> Vec<Change> {
        errors.failed("BadCompression".to_owned());
        errors.check([at(0, second, second + 5), stuck])
    }

    #[test]
    fn a_stalled_partition_is_failing_until_it_moves_again() {
        let mut errors = FetchErrors::default();
        let failing = Change::Failing {
            partition: 3,
            offset: 7,
            codes: "BadCompression".to_owned(),
        };
        let changes: Vec<Vec<Change>> = (0..5)
            .map(|second| check(&mut errors, second, at(3, 7, 55)))
            .collect();
        assert_eq!(changes, [vec![], vec![], vec![failing], vec![], vec![]]);
        assert_eq!(
            errors.failing(),
            [(3, "BadCompression".to_owned())].into(),
            "the one that moves is not among them"
        );
        let recovered = Change::Recovered {
            partition: 3,
            offset: 7,
        };
        assert_eq!(check(&mut errors, 5, at(3, 55, 55)), [recovered]);
        assert!(errors.failing().is_empty());
    }

    #[test]
    fn a_stalled_partition_without_errors_is_not_failing() {
        let mut errors = FetchErrors::default();
        for _ in 0..100 {
            assert!(errors.check([at(3, 7, 55)]).is_empty());
        }
        assert!(errors.failing().is_empty());
    }

    #[test]
    fn the_end_of_a_partition_and_queued_records_are_not_a_stall() {
        let queued = Fetching {
            idle: false,
            ..at(3, 7, 55)
        };
        // The next offset is unknown before the first fetch.
        let unknown = at(3, -1001, 55);
        for fetching in [at(3, 55, 55), queued, unknown] {
            let mut errors = FetchErrors::default();
            for second in 0..10 {
                assert!(check(&mut errors, second, fetching).is_empty());
            }
            assert!(errors.failing().is_empty());
        }
    }

    #[test]
    fn a_revoked_partition_is_forgotten() {
        let mut errors = FetchErrors::default();
        for second in 0..3 {
            check(&mut errors, second, at(3, 7, 55));
        }
        assert_eq!(errors.failing().len(), 1);
        assert!(errors.check([at(0, 9, 9)]).is_empty());
        assert!(errors.failing().is_empty());
    }

    #[test]
    fn a_failure_outlasts_seconds_without_an_error() {
        let mut errors = FetchErrors::default();
        let queued = Fetching {
            idle: false,
            ..at(3, 7, 55)
        };
        let mut changes = Vec::new();
        for second in 0..9 {
            changes.extend(check(&mut errors, second, at(3, 7, 55)));
            changes.extend(errors.check([at(3, 7, 55)]));
            changes.extend(errors.check([queued]));
        }
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(errors.failing().len(), 1);
    }
}
