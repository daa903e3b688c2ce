//! One dead letter, and the headers that describe its original record.

use serde::Deserialize;
use shared::order::{OrderUid, Version, parse_replay_version};

use super::{OURS, REPLAY_VERSION, VALUE_LEFT_OUT};
use crate::kafka::{headers::Header, record::Record};

/// Why a replay cannot send a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No worker wrote it: it does not name its source topic.
    Foreign,
    /// Its value was too large for the dead letter topic.
    WithoutValue,
    /// Its headers hold no version.
    WithoutVersion,
}

impl Obstacle {
    /// Returns what is wrong, and what to do.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Foreign => "no dlq-topic header; only a dead letter of a worker can be replayed",
            Self::WithoutValue => {
                "its value was too large for the dead letter topic; send the original record again"
            }
            Self::WithoutVersion => {
                "no version in its dlq-* headers; use --as-new to send it as a new record"
            }
        }
    }
}

/// A record of the dead letter topic.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The record as read from the dead letter topic.
    pub record: Record,
}

impl DeadLetter {
    fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.record.header(name)?).ok()
    }

    /// Returns a code of [`Reason`](shared::order::Reason), or `unknown` without a valid
    /// `dlq-reason` header.
    pub fn reason(&self) -> &str {
        self.text("dlq-reason").unwrap_or("unknown")
    }

    /// Returns the broken rule or the SQLSTATE. Empty without a valid `dlq-detail` header.
    pub fn detail(&self) -> &str {
        self.text("dlq-detail").unwrap_or_default()
    }

    /// Returns the topic of the original record.
    pub fn source_topic(&self) -> Option<&str> {
        self.text("dlq-topic")
    }

    /// Returns the version of the original record: its timestamp, offset and partition. None if one
    /// of these headers is missing or malformed.
    pub fn source_version(&self) -> Option<Version> {
        let number = |name| self.text(name)?.parse::<i64>().ok();
        let partition = i32::try_from(number("dlq-partition")?).ok()?;
        Some(Version::new(
            number("dlq-timestamp")?,
            number("dlq-offset")?,
            partition,
        ))
    }

    /// Returns the client id of the worker that wrote the dead letter.
    pub fn worker(&self) -> Option<&str> {
        self.text("dlq-worker")
    }

    /// Returns the key if it is a uid.
    pub fn key_uid(&self) -> Option<OrderUid> {
        OrderUid::from_bytes(self.record.key.as_deref()?).ok()
    }

    /// Returns the `order_uid` of the value if it has a valid one.
    pub fn value_uid(&self) -> Option<OrderUid> {
        #[derive(Deserialize)]
        struct OnlyUid<'a> {
            #[serde(borrow)]
            order_uid: std::borrow::Cow<'a, str>,
        }
        let value = self.record.value.as_deref()?;
        let order: OnlyUid<'_> = serde_json::from_slice(value).ok()?;
        OrderUid::parse(&order.order_uid).ok()
    }

    /// Returns why a replay cannot send the record; none if it can.
    pub fn obstacle(&self, as_new: bool) -> Option<Obstacle> {
        let keeps_version =
            self.source_version().is_some() || self.record.header(REPLAY_VERSION).is_some();
        if self.source_topic().is_none() {
            Some(Obstacle::Foreign)
        } else if self.detail().contains(VALUE_LEFT_OUT) {
            Some(Obstacle::WithoutValue)
        } else if !as_new && !keeps_version {
            // Without a version the record would count as new and win over later records.
            Some(Obstacle::WithoutVersion)
        } else {
            None
        }
    }

    /// Returns the version with which a worker reads a replay of this dead letter. None if it has
    /// no valid one.
    pub fn replay_version(&self) -> Option<Version> {
        match self.record.header(REPLAY_VERSION) {
            Some(header) => parse_replay_version(header).ok(),
            None => self.source_version(),
        }
    }

    /// Returns the headers for a replay: the original headers plus [`REPLAY_VERSION`], unless the
    /// original has that header. `as_new` omits the version, including one that the original has.
    pub fn replay_headers(&self, as_new: bool) -> Vec<Header> {
        let mut headers = self.record.headers.clone();
        let ours = headers.len().saturating_sub(OURS.len());
        if headers[ours..]
            .iter()
            .map(|header| header.name.as_str())
            .eq(OURS)
        {
            headers.truncate(ours);
        }
        if as_new {
            headers.retain(|header| header.name != REPLAY_VERSION);
        } else if !headers.iter().any(|header| header.name == REPLAY_VERSION)
            && let Some(version) = self.source_version()
        {
            let value = format!(
                "{}/{}/{}",
                version.timestamp_ms, version.offset, version.partition
            );
            headers.push(Header {
                name: REPLAY_VERSION.to_owned(),
                value: Some(value.into_bytes()),
            });
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::record::Timestamp;

    fn header(name: &str, value: &str) -> Header {
        Header {
            name: name.to_owned(),
            value: Some(value.as_bytes().to_vec()),
        }
    }

    fn letter(original: &[Header]) -> DeadLetter {
        let ours = [
            "invalid_order",
            "rule",
            "orders",
            "3",
            "42",
            "1700000000000",
            "w",
        ];
        let headers = original
            .iter()
            .cloned()
            .chain(
                OURS.into_iter()
                    .zip(ours)
                    .map(|(name, value)| header(name, value)),
            )
            .collect();
        let record = Record {
            topic: "orders-dlq".into(),
            partition: 0,
            offset: 0,
            timestamp: Timestamp::Missing,
            key: None,
            value: None,
            headers,
        };
        DeadLetter { record }
    }

    #[test]
    fn a_replay_drops_our_headers_and_carries_the_version() {
        let headers = letter(&[
            header("traceparent", "t"),
            header("dlq-reason", "an original of that name"),
        ])
        .replay_headers(false);
        assert_eq!(
            headers,
            [
                header("traceparent", "t"),
                header("dlq-reason", "an original of that name"),
                header(REPLAY_VERSION, "1700000000000/42/3")
            ]
        );
    }

    #[test]
    fn the_version_header_is_kept_except_with_as_new() {
        let letter = letter(&[header(REPLAY_VERSION, "1/2/3")]);
        assert_eq!(
            letter.replay_headers(false),
            [header(REPLAY_VERSION, "1/2/3")]
        );
        assert!(letter.replay_headers(true).is_empty());
    }

    #[test]
    fn our_headers_replace_originals_of_the_same_name() {
        let letter = letter(&[header("dlq-reason", "forged")]);
        assert_eq!(letter.reason(), "invalid_order");
        assert_eq!(
            letter.source_version(),
            Some(Version::new(1_700_000_000_000, 42, 3))
        );
    }
}
