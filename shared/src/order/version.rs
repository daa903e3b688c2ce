//! The version of an order: defines which of two records is newer.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The version of an order: timestamp (ms), offset and partition of its record, compared in this
/// order.
///
/// Two records never share a version. So any set of records has exactly one newest record, and the
/// order of arrival does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Timestamp of the record in milliseconds since 1970, or 0 if the record has none.
    pub timestamp_ms: i64,
    /// Offset of the record in its partition.
    pub offset: i64,
    /// Partition of the record.
    pub partition: i32,
}

/// A text that is not a [`Version`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a version: three decimal numbers within their widths")]
pub struct VersionError;

impl Version {
    /// Length in bytes of a version as text.
    pub const WIDTH: usize = 50;

    /// Creates the version of the record at `offset` of `partition`. A missing (negative) timestamp
    /// becomes 0.
    pub const fn new(timestamp_ms: i64, offset: i64, partition: i32) -> Self {
        let timestamp_ms = if timestamp_ms < 0 { 0 } else { timestamp_ms };
        Self {
            timestamp_ms,
            offset,
            partition,
        }
    }
}

/// Writes 19 digits, `-`, 19 digits, `-`, 10 digits.
///
/// All texts have the same length and sort like the versions, so Redis can compare them as strings.
/// Lua's numbers are doubles, which lose precision above 2^53.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The api formats a version at every read. The formatter's own padding takes several times
        // as long.
        let mut text = [b'-'; Self::WIDTH];
        write_digits(&mut text[..19], self.timestamp_ms.unsigned_abs());
        write_digits(&mut text[20..39], self.offset.unsigned_abs());
        write_digits(&mut text[40..], self.partition.unsigned_abs().into());
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Writes the last digits of `number`, as many as `text` has room for.
fn write_digits(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let bytes = text.as_bytes();
        if bytes.len() != Self::WIDTH || bytes[19] != b'-' || bytes[39] != b'-' {
            return Err(VersionError);
        }
        Ok(Self {
            timestamp_ms: digits(&bytes[..19])?,
            offset: digits(&bytes[20..39])?,
            partition: digits(&bytes[40..])?,
        })
    }
}

/// Parses the header `replay-version` of a replayed dead letter.
///
/// The format is `<timestamp ms>/<offset>/<partition>`: decimal digits only, no signs, no blanks.
///
/// # Errors
/// If the header does not have this format, or a number does not fit its type.
pub fn parse_replay_version(header: &[u8]) -> Result<Version, VersionError> {
    let mut parts = header.split(|byte| *byte == b'/');
    let mut part = || parts.next().ok_or(VersionError);
    let version = Version {
        timestamp_ms: digits(part()?)?,
        offset: digits(part()?)?,
        partition: digits(part()?)?,
    };
    match parts.next() {
        None => Ok(version),
        Some(_) => Err(VersionError),
    }
}

/// Parses decimal digits. `FromStr` of the integers would also accept a sign.
fn digits<N: FromStr>(text: &[u8]) -> Result<N, VersionError> {
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(VersionError);
    }
    str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(VersionError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_timestamp_then_offset_then_partition() {
        let ascending = [
            Version::new(0, 0, 0),
            Version::new(0, 0, 1),
            Version::new(0, 1, 0),
            Version::new(1, 0, 0),
            Version::new(1, 0, i32::MAX),
            Version::new(1, i64::MAX, 0),
            Version::new(i64::MAX, 0, 0),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
        assert!(ascending.is_sorted_by(|a, b| a.to_string() < b.to_string()));
    }

    #[test]
    fn missing_timestamp_counts_as_zero() {
        assert_eq!(Version::new(-1, 7, 2), Version::new(0, 7, 2));
    }

    #[test]
    fn text_has_fixed_width_and_reads_back() {
        for version in [
            Version::new(0, 0, 0),
            Version::new(1_637_907_727_000, 42, 5),
            Version::new(i64::MAX, i64::MAX, i32::MAX),
        ] {
            let text = version.to_string();
            assert_eq!(text.len(), Version::WIDTH);
            assert_eq!(text.parse(), Ok(version));
        }
        assert_eq!(
            Version::new(1_637_907_727_000, 42, 5).to_string(),
            "0000001637907727000-0000000000000000042-0000000005"
        );
    }

    #[test]
    fn other_texts_are_rejected() {
        let good = Version::new(1, 2, 3).to_string();
        for bad in [
            "",
            "1-2-3",
            &good[1..],
            &format!("{good}0"),
            &good.replace('-', "_"),
            &good.replace("0000000003", "+000000003"),
            &good.replace("0000000003", "2147483648"),
            &good.replace("0000000000000000001", "9223372036854775808"),
            &good.replace("00000003", "000000é"),
        ] {
            assert_eq!(bad.parse::<Version>(), Err(VersionError), "{bad}");
        }
    }

    #[test]
    fn replay_version_reads_three_numbers() {
        assert_eq!(
            parse_replay_version(b"1637907727000/42/5"),
            Ok(Version::new(1_637_907_727_000, 42, 5))
        );
        assert_eq!(parse_replay_version(b"0/0/0"), Ok(Version::new(0, 0, 0)));
        assert_eq!(
            parse_replay_version(b"9223372036854775807/9223372036854775807/2147483647"),
            Ok(Version::new(i64::MAX, i64::MAX, i32::MAX))
        );
    }

    #[test]
    fn malformed_replay_version_is_rejected() {
        for bad in [
            "",
            "1",
            "1/2",
            "1/2/",
            "/2/3",
            "1//3",
            "1/2/3/",
            "1/2/3/4",
            "-1/2/3",
            "+1/2/3",
            " 1/2/3",
            "1/2/3\n",
            "1 /2/3",
            "0x1/2/3",
            "1.0/2/3",
            "1/2/2147483648",
            "9223372036854775808/2/3",
            "1/9223372036854775808/3",
        ] {
            assert_eq!(
                parse_replay_version(bad.as_bytes()),
                Err(VersionError),
                "{bad}"
            );
        }
        assert_eq!(parse_replay_version(b"1/2/\xff"), Err(VersionError));
        assert_eq!(parse_replay_version("1/2/٣".as_bytes()), Err(VersionError));
    }
}
