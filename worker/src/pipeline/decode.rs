//! Decodes a record into a change, or into the reason why it can never be stored.

use std::time::{SystemTime, UNIX_EPOCH};

use shared::{
    order::{
        MAX_FUTURE, MAX_VALUE_BYTES, OrderUid, Reason, Rejection, UnknownFields, Version, decode,
        parse_replay_version,
    },
    storage::Change,
};

use crate::kafka::{Record, Timestamp, dead_letter::REPLAY_VERSION};

/// A record that can be stored.
pub(crate) struct Decoded {
    pub(crate) change: Change,
    pub(super) unknown_fields: u64,
}

/// Decodes and checks `record`, in the order of [`Reason`].
pub(crate) fn decode_record(
    record: &Record,
    fields: UnknownFields,
    now: SystemTime,
) -> Result<Decoded, Rejection> {
    let version = version(record);
    let too_large = record
        .value
        .as_ref()
        .is_some_and(|value| value.len() > MAX_VALUE_BYTES);
    if !too_large && lies_in_future(record, version.as_ref().ok(), now) {
        return Err(Rejection {
            reason: Reason::FutureTimestamp,
            detail: format!(
                "more than {} s ahead of the clocks of this worker and of Postgres",
                MAX_FUTURE.as_secs()
            ),
        });
    }
    match &record.value {
        Some(value) => {
            let decoded = decode(value, fields)?;
            let uid = OrderUid::parse(&decoded.order.order_uid)
                .map_err(|_| invalid("order_uid: code"))?;
            let change = Change {
                uid,
                version: version?,
                order: Some(Box::new(decoded.order)),
            };
            Ok(Decoded {
                change,
                unknown_fields: decoded.unknown_fields,
            })
        }
        None => {
            let uid = OrderUid::from_bytes(record.key.as_deref().unwrap_or_default())
                .map_err(|_| invalid("null value (erasure), but the key is not an order uid"))?;
            Ok(Decoded {
                change: Change {
                    uid,
                    version: version?,
                    order: None,
                },
                unknown_fields: 0,
            })
        }
    }
}

/// Returns the record's version: its position in Kafka, or, for a replayed dead letter, the
/// position of the original record.
fn version(record: &Record) -> Result<Version, Rejection> {
    match record.header(REPLAY_VERSION) {
        Some(header) => parse_replay_version(header)
            .map_err(|_| invalid("header replay-version: expected TIMESTAMP/OFFSET/PARTITION")),
        None => Ok(Version::new(
            record.timestamp.millis(),
            record.offset,
            record.partition,
        )),
    }
}

/// Returns whether the record is too far in the future. A time from the broker's clock never is; a
/// producer's or a replay's may be. If the replay's `version` cannot be read, the record's own time
/// counts.
fn lies_in_future(record: &Record, version: Option<&Version>, now: SystemTime) -> bool {
    let replayed = version.filter(|_| record.header(REPLAY_VERSION).is_some());
    let chosen = match (replayed, record.timestamp) {
        (Some(version), _) => version.timestamp_ms,
        (None, Timestamp::Create(millis)) => millis,
        (None, Timestamp::LogAppend(_) | Timestamp::Missing) => return false,
    };
    let limit = now.duration_since(UNIX_EPOCH).unwrap_or_default() + MAX_FUTURE;
    i128::from(chosen) > limit.as_millis() as i128
}

fn invalid(detail: &str) -> Rejection {
    Rejection {
        reason: Reason::InvalidOrder,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::order::sample;

    use super::*;
    use crate::kafka::Header;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn record(timestamp: Timestamp, value: Option<&[u8]>) -> Record {
        Record {
            topic: "orders".into(),
            partition: 3,
            offset: 42,
            timestamp,
            key: Some(b"uid-1".to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        }
    }

    fn valid() -> Vec<u8> {
        sample::Generator::new(1, 1..=3).next().unwrap().to_json()
    }

    fn check(record: &Record) -> Result<Version, Reason> {
        decode_record(record, UnknownFields::Ignore, UNIX_EPOCH + NOW)
            .map(|decoded| decoded.change.version)
            .map_err(|rejection| rejection.reason)
    }

    fn with_replay_version(mut record: Record, value: &str) -> Record {
        record.headers.push(Header {
            name: REPLAY_VERSION.to_owned(),
            value: Some(value.as_bytes().to_vec()),
        });
        record
    }

    #[test]
    fn the_version_is_the_position_of_the_record() {
        let version = check(&record(Timestamp::LogAppend(7), Some(&valid())));
        assert_eq!(version, Ok(Version::new(7, 42, 3)));
        assert_eq!(
            check(&record(Timestamp::Missing, Some(&valid()))),
            Ok(Version::new(0, 42, 3))
        );
        let replayed =
            with_replay_version(record(Timestamp::LogAppend(7), Some(&valid())), "5/6/1");
        assert_eq!(check(&replayed), Ok(Version::new(5, 6, 1)));
    }

    #[test]
    fn only_a_create_time_can_be_in_the_future() {
        let limit = (NOW + MAX_FUTURE).as_millis() as i64;
        let value = valid();
        assert!(check(&record(Timestamp::Create(limit), Some(&value))).is_ok());
        assert_eq!(
            check(&record(Timestamp::Create(limit + 1), Some(&value))),
            Err(Reason::FutureTimestamp)
        );
        assert!(check(&record(Timestamp::LogAppend(limit + 1), Some(&value))).is_ok());
        let replayed = with_replay_version(
            record(Timestamp::LogAppend(1), Some(&value)),
            &format!("{}/1/1", limit + 1),
        );
        assert_eq!(check(&replayed), Err(Reason::FutureTimestamp));
    }

    #[test]
    fn checks_run_in_the_order_of_the_reasons() {
        let future = Timestamp::Create(i64::MAX);
        let large = vec![b' '; MAX_VALUE_BYTES + 1];
        assert_eq!(check(&record(future, Some(&large))), Err(Reason::TooLarge));
        assert_eq!(
            check(&record(future, Some(b"{"))),
            Err(Reason::FutureTimestamp)
        );
        let unreadable = with_replay_version(record(future, Some(b"{")), "x");
        assert_eq!(check(&unreadable), Err(Reason::FutureTimestamp));
        let malformed = with_replay_version(record(Timestamp::Create(1), Some(b"{")), "x");
        assert_eq!(check(&malformed), Err(Reason::MalformedJson));
        let rule = with_replay_version(record(Timestamp::Create(1), Some(&valid())), "1/2");
        assert_eq!(check(&rule), Err(Reason::InvalidOrder));
    }

    #[test]
    fn a_null_value_erases_and_an_empty_one_is_malformed() {
        let erasure = decode_record(
            &record(Timestamp::LogAppend(1), None),
            UnknownFields::Ignore,
            UNIX_EPOCH + NOW,
        );
        let change = erasure.ok().map(|decoded| decoded.change).unwrap();
        assert_eq!(
            (change.uid.as_str(), change.order.is_none()),
            ("uid-1", true)
        );
        assert_eq!(
            check(&record(Timestamp::LogAppend(1), Some(b""))),
            Err(Reason::MalformedJson)
        );
        for key in [None, Some(b"not a uid".to_vec()), Some(Vec::new())] {
            let mut record = record(Timestamp::LogAppend(1), None);
            record.key = key;
            assert_eq!(check(&record), Err(Reason::InvalidOrder));
        }
    }
}
