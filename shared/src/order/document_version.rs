//! The version of a document: which record it shows, and in which shape.

use std::fmt;
use std::str::FromStr;

use super::{REPRESENTATION, Version, VersionError};

/// The version of an order, and the number of the shape in which a program wrote its document.
///
/// Redis and the `ETag` carry it, so two documents with the same text have the same bytes. The
/// version decides first: an older record never overwrites a newer one, in any shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentVersion {
    /// The version of the order.
    pub version: Version,
    /// The [`REPRESENTATION`] of the program that wrote the document.
    pub representation: u8,
}

impl DocumentVersion {
    /// Maximum length in bytes of the text.
    pub const MAX_WIDTH: usize = Version::WIDTH + "-255".len();

    /// Returns the version of a document that this program writes.
    pub const fn current(version: Version) -> Self {
        Self {
            version,
            representation: REPRESENTATION,
        }
    }
}

/// Writes the version, followed by `-` and the representation if that is greater than 1.
///
/// All versions have the same width, so the representation starts at the same place in each text.
/// Compare representations as numbers: their width differs.
impl fmt::Display for DocumentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.version.fmt(f)?;
        match self.representation {
            ..=1 => Ok(()),
            representation => write!(f, "-{representation}"),
        }
    }
}

impl FromStr for DocumentVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let (version, suffix) = text.split_at_checked(Version::WIDTH).ok_or(VersionError)?;
        let parsed = Self {
            version: version.parse()?,
            representation: match suffix.strip_prefix('-') {
                None if suffix.is_empty() => 1,
                Some(number) if number.starts_with(|digit: char| digit.is_ascii_digit()) => {
                    number.parse().map_err(|_| VersionError)?
                }
                _ => return Err(VersionError),
            },
        };
        // `-0`, `-1` and leading zeros would give one document two texts.
        match parsed.representation {
            ..=1 if !suffix.is_empty() => Err(VersionError),
            _ if suffix.starts_with("-0") => Err(VersionError),
            _ => Ok(parsed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0000001637907727000-0000000000000000042-0000000005";

    fn document(offset: i64, representation: u8) -> DocumentVersion {
        DocumentVersion {
            version: Version::new(1_637_907_727_000, offset, 5),
            representation,
        }
    }

    #[test]
    fn the_first_representation_adds_nothing_to_the_version() {
        assert_eq!(document(42, 1).to_string(), TEXT);
        assert_eq!(TEXT.parse(), Ok(document(42, 1)));
    }

    #[test]
    fn later_representations_follow_the_version() {
        for representation in [2, 9, 10, 255] {
            let text = format!("{TEXT}-{representation}");
            assert_eq!(document(42, representation).to_string(), text);
            assert_eq!(text.parse(), Ok(document(42, representation)));
            assert!(text.len() <= DocumentVersion::MAX_WIDTH);
        }
    }

    #[test]
    fn the_version_decides_before_the_representation() {
        let ascending = [
            document(42, 1),
            document(42, 2),
            document(42, 10),
            document(43, 1),
            document(43, 2),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn other_texts_are_rejected() {
        for suffix in [
            "-", "-0", "-1", "-02", "-256", "-+2", "-2 ", "-2-2", "2", "--2", "-é",
        ] {
            let text = format!("{TEXT}{suffix}");
            assert_eq!(text.parse::<DocumentVersion>(), Err(VersionError), "{text}");
        }
        for text in ["", "zzz", &TEXT[1..], &TEXT.replace("05", "é")] {
            assert_eq!(text.parse::<DocumentVersion>(), Err(VersionError), "{text}");
        }
    }
}
