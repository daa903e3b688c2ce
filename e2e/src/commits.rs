//! Commit times of order versions, from the log of Postgres.

use std::collections::BTreeMap;

use chrono::DateTime;
use shared::order::Version;

use crate::postgres::Database;

/// Name of the replication slot. Each database has one.
const SLOT: &str = "commits";

/// A version of an order and the time at which it became visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Uid of the order.
    pub uid: String,
    /// The version.
    pub version: Version,
    /// Time of the commit in microseconds since 1970.
    pub at_us: i64,
}

impl Database {
    /// Creates the replication slot that [`Database::commits`] reads. Postgres must run with
    /// `wal_level=logical`.
    #[track_caller]
    pub fn keep_commits(&self) {
        self.execute(&format!(
            "SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding')"
        ));
    }

    /// Returns every version that was committed since [`Database::keep_commits`] or since the last
    /// call.
    #[track_caller]
    pub fn commits(&self) -> Vec<Commit> {
        let changes = self.texts(&format!(
            "SELECT data FROM pg_logical_slot_get_changes('{SLOT}', NULL, NULL, \
             'include-timestamp', 'true', 'skip-empty-xacts', 'true')"
        ));
        commits(&changes)
    }
}

/// Parses lines of `test_decoding`. The rows of a transaction come before its COMMIT.
fn commits(changes: &[String]) -> Vec<Commit> {
    let (mut commits, mut rows) = (Vec::new(), BTreeMap::new());
    for change in changes {
        if let Some((_, time)) = change.split_once("(at ") {
            let time = DateTime::parse_from_str(time.trim_end_matches(')'), "%F %T%.f%#z")
                .unwrap_or_else(|error| panic!("{change}: {error}"));
            let at_us = time.timestamp_micros();
            let visible = std::mem::take(&mut rows).into_iter();
            commits.extend(visible.map(|(uid, version)| Commit {
                uid,
                version,
                at_us,
            }));
        } else if change.starts_with("table public.orders: ") {
            let field = |name: &str| {
                let (_, rest) = change.split_once(&format!(" {name}:"))?;
                rest.split_whitespace().next()
            };
            let number = |name: &str| field(&format!("{name}[bigint]"))?.parse().ok();
            let row = || {
                let version = Version::new(
                    number("source_timestamp_ms")?,
                    number("source_offset")?,
                    field("source_partition[integer]")?.parse().ok()?,
                );
                Some((
                    field("order_uid[text]")?.trim_matches('\'').to_owned(),
                    version,
                ))
            };
            rows.extend([row().unwrap_or_else(|| panic!("no version in {change}"))]);
        }
    }
    commits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_time_of_its_transaction() {
        let changes = [
            "BEGIN 733",
            "table public.orders: UPDATE: id[bigint]:1 order_uid[text]:'a-1' \
             source_timestamp_ms[bigint]:7 \
             source_offset[bigint]:8 source_partition[integer]:9 entry[text]:'x'",
            "table public.items: INSERT: order_id[bigint]:1",
            "COMMIT 733 (at 2026-11-21 18:37:09.000123+00)",
        ];
        let found = commits(&changes.map(str::to_owned));
        let expected = Commit {
            uid: "a-1".to_owned(),
            version: Version::new(7, 8, 9),
            at_us: 1_795_286_229_000_123,
        };
        assert_eq!(found, [expected]);
    }
}
