//! What a worker would do with a replay of a dead letter.

use std::time::SystemTime;

use shared::{
    order::{OrderUid, Rejection, UnknownFields, Version},
    storage::Postgres,
};

use crate::{
    kafka::{Record, Timestamp, dead_letter::DeadLetter},
    moment,
    pipeline::decode_record,
};

/// A replay that a worker would not reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) uid: OrderUid,
    /// The version of the replay. One as a new record gets its version from Kafka, and wins.
    pub(super) version: Option<Version>,
}

/// Checks a replay of `letter` as a worker checks a record.
///
/// # Errors
/// Returns the rejection with which it would become a dead letter again.
pub(super) fn check(
    letter: &DeadLetter,
    as_new: bool,
    fields: UnknownFields,
) -> Result<Accepted, Rejection> {
    let replay = Record {
        timestamp: Timestamp::LogAppend(0),
        headers: letter.replay_headers(as_new),
        ..letter.record.clone()
    };
    let change = decode_record(&replay, fields, SystemTime::now())?.change;
    Ok(Accepted {
        uid: change.uid,
        version: (!as_new).then_some(change.version),
    })
}

/// Returns what Postgres would do with the replay, in words.
pub(super) async fn against(postgres: &Postgres, accepted: Accepted) -> String {
    let uid = accepted.uid;
    let stored = match postgres.read(&uid).await {
        Ok(stored) => stored,
        Err(error) => return format!("the order {uid} passes the checks; {error}"),
    };
    let stored = stored.map(|it| (it.version, it.document.is_none()));
    outcome(accepted, stored)
}

/// Compares a replay with the version that Postgres holds, and whether that is an erasure.
fn outcome(accepted: Accepted, stored: Option<(Version, bool)>) -> String {
    let uid = accepted.uid;
    let Some((stored, is_erased)) = stored else {
        return format!("stores the order {uid}, which Postgres does not hold");
    };
    let state = if is_erased { "erased" } else { "stored" };
    let since = moment::of_millis(stored.timestamp_ms);
    match accepted.version {
        Some(version) if version == stored => {
            format!("changes nothing: Postgres holds this version of the order {uid}")
        }
        Some(version) if version < stored => format!(
            "changes nothing: the order {uid} was {state} with a newer version ({since}); \
             --as-new would win over it"
        ),
        _ if is_erased => format!("brings back the order {uid}, which was erased ({since})"),
        _ => format!("replaces the order {uid}, stored with an older version ({since})"),
    }
}

#[cfg(test)]
mod tests {
    use shared::order::{Reason, sample};

    use super::*;
    use crate::dead_letters::row::tests::letter;

    #[test]
    fn the_outcome_follows_from_the_versions() {
        let at = |millis| Version::new(millis, 0, 0);
        let accepted = |version| Accepted {
            uid: OrderUid::parse("u").unwrap(),
            version,
        };
        for (version, stored, expected) in [
            (Some(at(5)), None, "stores"),
            (
                Some(at(5)),
                Some((at(5), false)),
                "changes nothing: Postgres holds this",
            ),
            (
                Some(at(5)),
                Some((at(6), false)),
                "changes nothing: the order u was stored",
            ),
            (
                Some(at(5)),
                Some((at(6), true)),
                "changes nothing: the order u was erased",
            ),
            (Some(at(5)), Some((at(4), false)), "replaces"),
            (Some(at(5)), Some((at(4), true)), "brings back"),
            (None, Some((at(i64::MAX / 2), false)), "replaces"),
            (None, Some((at(9), true)), "brings back"),
        ] {
            let words = outcome(accepted(version), stored);
            assert!(words.starts_with(expected), "{words}");
        }
    }

    #[test]
    fn a_replay_is_checked_with_the_version_of_the_original() {
        let order = sample::Generator::new(1, 1..=1).next().unwrap();
        let value = order.to_json();
        let good = letter("rejected_by_database", "SQLSTATE 23514", &value);
        let accepted = check(&good, false, UnknownFields::Ignore).unwrap();
        assert_eq!(accepted.uid.as_str(), order.order_uid);
        let original = Version::new(1_700_000_000_000, 42, 3);
        assert_eq!(accepted.version, Some(original));
        let as_new = check(&good, true, UnknownFields::Ignore).unwrap();
        assert_eq!(as_new.version, None);
        let bad = letter("malformed_json", "not JSON", b"{");
        let rejection = check(&bad, false, UnknownFields::Ignore).unwrap_err();
        assert_eq!(rejection.reason, Reason::MalformedJson);
    }
}
