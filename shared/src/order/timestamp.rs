//! Points in time as RFC 3339 text.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::Visitor;
use serde::ser::{Serialize, Serializer};

/// The point in time that an RFC 3339 text names: in UTC, cut to microseconds; a leap second is the first of the next
/// minute.
pub(super) fn parse(text: &str) -> Option<DateTime<Utc>> {
    // chrono also takes a blank for the `T` and U+2212 for the minus of an offset; RFC 3339 has neither.
    let strict = text.is_ascii() && matches!(text.as_bytes().get(10), Some(b'T' | b't'));
    if !strict {
        return None;
    }
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    DateTime::from_timestamp_micros(time.timestamp_micros())
}

/// Reads a string, and from it a point in time where it names one.
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

/// Writes a point in time with `Z` and 0, 3 or 6 decimals, as many as it needs.
pub(super) struct Rfc3339(pub(super) DateTime<Utc>);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}
