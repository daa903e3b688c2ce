//! Decides whether a difference between Postgres and Redis is a fault. Pure: no I/O.
//!
//! A difference is a fault if two looks, at least [`CONFIRM_AFTER`] apart, see it:
//!
//! - Both looks find Redis complete, and no repair mark or note names the order. Otherwise the
//!   system knows what Redis lacks: the difference is pending.
//! - In the second look, Redis has still not reached the row of the first look, or Postgres has
//!   still not reached the entry of the first look. So an order that changes all the time is no
//!   fault: each look may see another change that Redis does not have yet.
//!
//! A look reads Postgres, then marks and notes, then Redis. A note is committed with its row and
//! deleted after the entry was written or marked. So once neither is left, Redis holds the row that
//! was read, or a newer one.

use std::time::{Duration, Instant};

use shared::{
    cache::CacheState,
    order::{OrderUid, Version},
    storage::CompleteCache,
};

use super::difference::Finding;
use crate::metrics::CheckResult;

/// Time between two looks. Within this time after Redis is back, no entry is older than Postgres
/// (docs/promises.md).
pub const CONFIRM_AFTER: Duration = Duration::from_secs(20);

/// What a look found of one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The comparison.
    pub finding: Finding,
    /// Why the system knows that Redis may differ; none if it does not.
    pub pending: Option<Pending>,
}

/// A repair that explains a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Pending {
    /// A repair mark or the note of an unfinished write names the order.
    #[error("a worker will write this order to Redis")]
    Order,
    /// Redis is not known to be complete.
    #[error("workers have not finished repairing Redis")]
    Redis,
}

/// A difference that one look has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// The first look. Redis must reach its row, and Postgres its entry.
    first: Finding,
    /// When the look ended.
    at: Instant,
}

/// The result for an order. It is a fault if `finding.result` is a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The result, and what the last look compared.
    pub finding: Finding,
    /// The repair that explains a pending difference.
    pub pending: Option<Pending>,
}

/// The result of a first look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// No fault.
    Settled(Verdict),
    /// A second look must decide.
    Suspect(Suspicion),
}

impl Look {
    /// Judges a first look that ended at `now`.
    pub fn judge(self, now: Instant) -> Judged {
        let Self { finding, pending } = self;
        if !finding.result.is_difference() {
            return Judged::Settled(Verdict {
                finding,
                pending: None,
            });
        }
        // No repair completes the rows of an order.
        if pending.is_some() && finding.result != CheckResult::Incomplete {
            let result = CheckResult::Pending;
            let finding = Finding { result, ..finding };
            return Judged::Settled(Verdict { finding, pending });
        }
        Judged::Suspect(Suspicion {
            first: finding,
            at: now,
        })
    }
}

impl Suspicion {
    /// Returns the uid of the order.
    pub fn uid(&self) -> OrderUid {
        self.first.uid
    }

    /// Returns when to look again.
    pub fn due(&self) -> Instant {
        self.at + CONFIRM_AFTER
    }

    /// Judges a second look, which began no earlier than [`Suspicion::due`].
    pub fn judge(&self, second: Look) -> Verdict {
        let second = match second.judge(self.at) {
            Judged::Settled(verdict) => return verdict,
            Judged::Suspect(Self { first: second, .. }) => second,
        };
        let persists = match second.result {
            CheckResult::Stale => entry(&second) < self.first.row,
            CheckResult::Ahead => second.row < entry(&self.first),
            CheckResult::Orphaned => self.first.row.is_none(),
            // No unfinished write explains these: one version has one document, and one statement
            // reads all rows of an order.
            CheckResult::Different | CheckResult::Foreign | CheckResult::Incomplete => true,
            CheckResult::Consistent
            | CheckResult::Missing
            | CheckResult::Pending
            | CheckResult::Unverified => false,
        };
        // Without the first difference, this one is a later change that is not finished.
        let result = match persists {
            true => second.result,
            false => CheckResult::Consistent,
        };
        Verdict {
            finding: Finding { result, ..second },
            pending: None,
        }
    }
}

/// Returns the version of the order in Redis.
fn entry(finding: &Finding) -> Option<Version> {
    finding.entry.map(|entry| entry.version)
}

/// Returns whether Redis is known to be complete, apart from marks and notes: workers use this
/// server, it has a watermark that is not older than the one recorded in Postgres, and no worker is
/// rewriting or deleting entries. `recorded` must be read before `state`.
///
/// Without it, Redis may have returned with older content, and workers are still repairing it.
pub fn is_complete(recorded: Option<&CompleteCache>, state: &CacheState) -> bool {
    let Some(recorded) = recorded else {
        return false;
    };
    recorded.servers == state.servers
        && state
            .watermark
            .is_some_and(|watermark| watermark >= recorded.until)
        && !state.bypass
        && !state.cleared
}

/// Returns whether Redis has kept its content between two states: the same servers, with the same
/// role and replication id, and a watermark that has not gone back.
pub fn has_kept_content(before: &CacheState, after: &CacheState) -> bool {
    before.servers == after.servers
        && before.replication == after.replication
        && before.watermark <= after.watermark
        && !after.bypass
        && !after.cleared
}

#[cfg(test)]
mod tests {
    use shared::{DatabaseTime, order::DocumentVersion};

    use super::*;

    fn finding(result: CheckResult, row: Option<i64>, entry: Option<i64>) -> Finding {
        let version = |offset| Version::new(1, offset, 0);
        Finding {
            uid: OrderUid::parse("u").unwrap(),
            result,
            row: row.map(version),
            entry: entry.map(|offset| DocumentVersion::current(version(offset))),
            flaw: None,
        }
    }

    fn look(result: CheckResult, row: Option<i64>, entry: Option<i64>) -> Look {
        Look {
            finding: finding(result, row, entry),
            pending: None,
        }
    }

    fn suspicion(first: Look) -> Suspicion {
        match first.judge(Instant::now()) {
            Judged::Suspect(suspicion) => suspicion,
            Judged::Settled(verdict) => panic!("{verdict:?}"),
        }
    }

    fn settled(first: Look) -> Verdict {
        match first.judge(Instant::now()) {
            Judged::Settled(verdict) => verdict,
            Judged::Suspect(suspicion) => panic!("{suspicion:?}"),
        }
    }

    /// Returns the result of two looks.
    fn result(first: Look, second: Look) -> CheckResult {
        suspicion(first).judge(second).finding.result
    }

    const DIFFERENCES: [CheckResult; 6] = [
        CheckResult::Stale,
        CheckResult::Ahead,
        CheckResult::Different,
        CheckResult::Orphaned,
        CheckResult::Foreign,
        CheckResult::Incomplete,
    ];

    #[test]
    fn one_look_confirms_nothing() {
        for result in DIFFERENCES {
            let suspicion = suspicion(look(result, Some(2), Some(1)));
            assert_eq!(suspicion.due(), suspicion.at + CONFIRM_AFTER);
        }
        for result in [CheckResult::Consistent, CheckResult::Missing] {
            let verdict = settled(look(result, Some(2), None));
            assert_eq!(verdict.finding.result, result);
        }
    }

    #[test]
    fn a_difference_that_persists_is_confirmed() {
        use CheckResult::{Ahead, Different, Foreign, Incomplete, Orphaned, Stale};
        for (first, second) in [
            (look(Stale, Some(2), Some(1)), look(Stale, Some(2), Some(1))),
            // The order changed again, and Redis has not even reached the first row.
            (look(Stale, Some(4), Some(1)), look(Stale, Some(9), Some(3))),
            (look(Ahead, Some(1), Some(3)), look(Ahead, Some(2), Some(3))),
            (look(Orphaned, None, Some(1)), look(Orphaned, None, Some(1))),
            (
                look(Different, Some(1), Some(1)),
                look(Different, Some(2), Some(2)),
            ),
            (look(Foreign, Some(1), None), look(Foreign, Some(1), None)),
            (
                look(Incomplete, Some(1), None),
                look(Incomplete, Some(1), None),
            ),
        ] {
            let expected = second.finding.result;
            assert_eq!(result(first, second), expected);
        }
    }

    #[test]
    fn an_unfinished_update_or_erasure_is_no_fault() {
        let first = || look(CheckResult::Stale, Some(2), Some(1));
        for (second, expected) in [
            (
                look(CheckResult::Consistent, Some(2), Some(2)),
                CheckResult::Consistent,
            ),
            // The entry expired meanwhile.
            (
                look(CheckResult::Missing, Some(2), None),
                CheckResult::Missing,
            ),
            // A hot order: each look sees another unfinished change.
            (
                look(CheckResult::Stale, Some(900), Some(899)),
                CheckResult::Consistent,
            ),
            (
                look(CheckResult::Stale, Some(3), Some(2)),
                CheckResult::Consistent,
            ),
        ] {
            assert_eq!(result(first(), second), expected);
        }
    }

    #[test]
    fn a_row_that_was_read_before_a_change_is_no_fault() {
        let ahead = || look(CheckResult::Ahead, Some(1), Some(2));
        let later = look(CheckResult::Ahead, Some(7), Some(8));
        assert_eq!(result(ahead(), later), CheckResult::Consistent);
        let reached = look(CheckResult::Ahead, Some(2), Some(3));
        assert_eq!(result(ahead(), reached), CheckResult::Consistent);
        // The order was new: its row came after the read of Postgres.
        let orphaned = look(CheckResult::Orphaned, None, Some(1));
        assert_eq!(result(orphaned, ahead()), CheckResult::Consistent);
    }

    #[test]
    fn a_pending_repair_explains_a_difference_in_either_look() {
        for pending in [Pending::Order, Pending::Redis] {
            let known = |look| Look {
                pending: Some(pending),
                ..look
            };
            for different in DIFFERENCES.map(|result| look(result, Some(2), Some(1))) {
                if different.finding.result == CheckResult::Incomplete {
                    continue;
                }
                let verdict = settled(known(different.clone()));
                assert_eq!(verdict.finding.result, CheckResult::Pending);
                assert_eq!(verdict.pending, Some(pending));
                let second = known(different.clone());
                assert_eq!(result(different, second), CheckResult::Pending);
            }
            // Nothing differs, so nothing is pending.
            let same = known(look(CheckResult::Consistent, Some(2), Some(2)));
            let verdict = settled(same);
            assert_eq!(verdict.finding.result, CheckResult::Consistent);
            assert_eq!(verdict.pending, None);
        }
    }

    #[test]
    fn no_repair_completes_the_rows_of_an_order() {
        let look = Look {
            pending: Some(Pending::Redis),
            ..look(CheckResult::Incomplete, Some(2), None)
        };
        assert_eq!(result(look.clone(), look), CheckResult::Incomplete);
    }

    fn state(server: &str, watermark: Option<i64>) -> CacheState {
        CacheState {
            servers: vec![server.to_owned()],
            replication: vec!["r".to_owned()],
            watermark: watermark.map(DatabaseTime),
            ..CacheState::default()
        }
    }

    #[test]
    fn a_redis_that_returned_with_older_content_is_not_complete() {
        let recorded = CompleteCache {
            until: DatabaseTime(100),
            servers: vec!["a".to_owned()],
            age: Duration::ZERO,
        };
        let complete = |state: &CacheState| is_complete(Some(&recorded), state);
        let whole = state("a", Some(101));
        assert!(complete(&whole));
        assert!(!is_complete(None, &whole), "no worker has checked it");
        for other in [
            // A restart, a failover, an old dump, a flush, an eviction.
            state("b", Some(101)),
            state("a", Some(99)),
            state("a", None),
            CacheState {
                bypass: true,
                ..whole.clone()
            },
            CacheState {
                cleared: true,
                ..whole.clone()
            },
        ] {
            assert!(!complete(&other), "{other:?}");
        }
    }

    #[test]
    fn a_redis_that_changed_during_a_look_has_not_kept_its_content() {
        let before = state("a", Some(100));
        assert!(has_kept_content(&before, &before));
        assert!(has_kept_content(&before, &state("a", Some(101))));
        for after in [
            state("b", Some(101)),
            state("a", Some(99)),
            state("a", None),
            CacheState {
                replication: vec!["other".to_owned()],
                ..state("a", Some(101))
            },
            CacheState {
                bypass: true,
                ..state("a", Some(101))
            },
        ] {
            assert!(!has_kept_content(&before, &after), "{after:?}");
        }
    }
}
