//! Compares a row of Postgres with an entry of Redis. Pure: no I/O.

use std::cmp::Ordering;

use shared::{
    cache::Held,
    order::{DocumentVersion, OrderUid, REPRESENTATION, Version},
    storage::{Flaw, Inspected},
};

use crate::metrics::CheckResult;

/// The result of comparing one order, and what was compared. Holds no personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The uid of the order.
    pub uid: OrderUid,
    /// The result.
    pub result: CheckResult,
    /// The version in Postgres; none without a row.
    pub row: Option<Version>,
    /// The version in Redis; none without an entry of ours.
    pub entry: Option<DocumentVersion>,
    /// What is wrong with the rows in the four tables.
    pub flaw: Option<Flaw>,
}

/// Compares the row and the entry of the order `uid`.
pub fn compare(uid: OrderUid, row: Option<&Inspected>, held: &Held) -> Finding {
    Finding {
        uid,
        result: result(row, held),
        row: row.map(|row| row.revision.version),
        entry: match held {
            Held::Entry(entry) => Some(entry.version),
            Held::Nothing | Held::Foreign | Held::Unverified => None,
        },
        flaw: row.and_then(|row| row.flaw),
    }
}

fn result(row: Option<&Inspected>, held: &Held) -> CheckResult {
    let row = match row {
        Some(row) if row.flaw.is_some() => return CheckResult::Incomplete,
        row => row.map(|row| &row.revision),
    };
    match (row, held) {
        (_, Held::Nothing) => CheckResult::Missing,
        (_, Held::Foreign) => CheckResult::Foreign,
        (_, Held::Unverified) => CheckResult::Unverified,
        (None, Held::Entry(_)) => CheckResult::Orphaned,
        (Some(row), Held::Entry(entry)) => match entry.version.version.cmp(&row.version) {
            Ordering::Less => CheckResult::Stale,
            Ordering::Greater => CheckResult::Ahead,
            // Another release wrote the entry, in its own shape. The bytes differ, and readers of
            // this release ignore an older shape. But both shapes show whether it is erased.
            Ordering::Equal if entry.version.representation != REPRESENTATION => {
                match entry.document.is_some() == row.document.is_some() {
                    true => CheckResult::Consistent,
                    false => CheckResult::Different,
                }
            }
            Ordering::Equal if entry.document == row.document => CheckResult::Consistent,
            Ordering::Equal => CheckResult::Different,
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shared::{cache::Cached, order::Revision};

    use super::*;

    fn uid() -> OrderUid {
        OrderUid::parse("u").unwrap()
    }

    fn row(offset: i64, document: Option<&'static str>) -> Option<Inspected> {
        Some(Inspected {
            revision: Revision {
                uid: uid(),
                version: Version::new(1, offset, 0),
                document: document.map(Bytes::from),
            },
            flaw: None,
        })
    }

    fn entry(offset: i64, representation: u8, document: Option<&'static str>) -> Held {
        let version = DocumentVersion {
            version: Version::new(1, offset, 0),
            representation,
        };
        Held::Entry(Cached::unchecked(version, document.map(Bytes::from)))
    }

    /// Asserts the result for each row and entry.
    fn assert_results<const N: usize>(cases: [(Option<Inspected>, Held, CheckResult); N]) {
        for (row, held, expected) in cases {
            let finding = compare(uid(), row.as_ref(), &held);
            assert_eq!(finding.result, expected, "{row:?}, {held:?}");
        }
    }

    #[test]
    fn an_entry_must_hold_the_version_and_the_document_of_its_row() {
        use CheckResult::{Ahead, Consistent, Different, Stale};
        let entry = |offset, document| entry(offset, REPRESENTATION, document);
        assert_results([
            (row(2, Some("a")), entry(2, Some("a")), Consistent),
            (row(2, None), entry(2, None), Consistent),
            (row(2, Some("a")), entry(2, Some("b")), Different),
            (row(2, Some("a")), entry(2, None), Different),
            (row(2, Some("a")), entry(1, Some("a")), Stale),
            (row(2, Some("a")), entry(3, Some("a")), Ahead),
            // An erased order, still readable in Redis.
            (row(2, None), entry(2, Some("a")), Different),
            (row(2, None), entry(1, Some("a")), Stale),
        ]);
    }

    #[test]
    fn an_entry_must_have_a_row_and_may_be_missing() {
        use CheckResult::{Foreign, Missing, Orphaned, Unverified};
        assert_results([
            (row(2, Some("a")), Held::Nothing, Missing),
            (None, Held::Nothing, Missing),
            (None, entry(2, REPRESENTATION, Some("a")), Orphaned),
            (None, entry(2, REPRESENTATION, None), Orphaned),
            (row(2, Some("a")), Held::Foreign, Foreign),
            (None, Held::Foreign, Foreign),
            (row(2, Some("a")), Held::Unverified, Unverified),
            (None, Held::Unverified, Unverified),
        ]);
    }

    /// During a rolling upgrade, two shapes of the document are side by side.
    #[test]
    fn of_another_shape_only_the_version_is_compared() {
        use CheckResult::{Ahead, Consistent, Different, Stale};
        let (older, newer) = (REPRESENTATION - 1, REPRESENTATION + 1);
        assert_results([
            (row(2, Some("a")), entry(2, older, Some("b")), Consistent),
            (row(2, Some("a")), entry(2, newer, Some("b")), Consistent),
            (row(2, None), entry(2, newer, Some("b")), Different),
            (row(2, Some("a")), entry(1, newer, Some("a")), Stale),
            (row(2, Some("a")), entry(3, older, Some("a")), Ahead),
        ]);
    }

    #[test]
    fn rows_that_are_not_one_order_are_incomplete_without_an_entry_too() {
        let flawed = row(2, None).map(|row| Inspected {
            flaw: Some(Flaw::NoItem),
            ..row
        });
        for held in [Held::Nothing, Held::Foreign, entry(2, REPRESENTATION, None)] {
            let finding = compare(uid(), flawed.as_ref(), &held);
            assert_eq!(finding.result, CheckResult::Incomplete);
            assert_eq!(finding.flaw, Some(Flaw::NoItem));
        }
    }
}
