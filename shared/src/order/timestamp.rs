//! RFC 3339 timestamps.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::Visitor;
use serde::ser::{Serialize, Serializer};

/// Parses an RFC 3339 text. Returns the time in UTC, truncated to microseconds. A leap second
/// becomes the first second of the next minute.
pub(super) fn parse(text: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(parse_exactly(text)?.timestamp_micros())
}

/// Parses an RFC 3339 text. Returns the first microsecond (UTC) that is not before it. Orders have
/// times in microseconds, so those at this time or later are those at the exact time or later.
pub fn parse_time_rounded_up(text: &str) -> Option<DateTime<Utc>> {
    let time = parse_exactly(text)?;
    let rest = i64::from(time.timestamp_subsec_nanos() % 1000 > 0);
    DateTime::from_timestamp_micros(time.timestamp_micros() + rest)
}

fn parse_exactly(text: &str) -> Option<DateTime<Utc>> {
    // chrono also accepts a blank instead of `T`, and U+2212 as the minus of an offset. RFC 3339
    // allows neither.
    let strict = text.is_ascii() && matches!(text.as_bytes().get(10), Some(b'T' | b't'));
    if !strict {
        return None;
    }
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| time.to_utc())
}

/// Reads a string and parses it as a point in time. The value is `None` if the string is not RFC
/// 3339.
pub(super) struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Option<DateTime<Utc>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(parse(text))
    }
}

/// Writes a point in time with `Z` and 0, 3 or 6 decimals, as many as needed.
pub(super) struct Rfc3339(pub(super) DateTime<Utc>);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}
