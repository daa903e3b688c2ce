//! The validated identifier of an order.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayString;
use thiserror::Error;

use super::rule::Text;

/// The uid of an order: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
///
/// The type guarantees the format. A uid is safe in a Redis key, a URL path and a log line. The
/// text is stored inline, without a heap allocation, so comparing the keys of a map follows no
/// pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderUid(ArrayString<{ Text::CODE.max_length }>);

/// A text that is not an [`OrderUid`]. The error does not quote the text, which may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an order uid: 1 to 64 of A-Z a-z 0-9 _ - are expected")]
pub struct InvalidUid;

impl OrderUid {
    /// Parses `text` as a uid.
    pub fn parse(text: &str) -> Result<Self, InvalidUid> {
        if !Text::CODE.holds(text) {
            return Err(InvalidUid);
        }
        let text = ArrayString::from(text).map_err(|_| InvalidUid)?;
        Ok(Self(text))
    }

    /// Parses `bytes`, such as the key of a record, as a uid.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidUid> {
        Self::parse(str::from_utf8(bytes).map_err(|_| InvalidUid)?)
    }

    /// Returns the uid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for OrderUid {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for OrderUid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrderUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for OrderUid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, InvalidUid> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_of_existing_producers_are_accepted() {
        for good in [
            "b563feb7b2b84b6test",
            "d290f1ee-6c54-4b01-90e6-d701748f0851",
            "order_1",
            "a",
            &"z".repeat(64),
        ] {
            assert_eq!(
                OrderUid::parse(good).map(|uid| uid.to_string()),
                Ok(good.to_owned())
            );
            assert_eq!(OrderUid::from_bytes(good.as_bytes()), OrderUid::parse(good));
        }
    }

    #[test]
    fn malformed_uids_are_rejected() {
        for bad in [
            "",
            " ",
            "a b",
            "a/b",
            "ä",
            "a\0",
            "a\n",
            "a.b",
            "a:b",
            &"z".repeat(65),
        ] {
            assert_eq!(OrderUid::parse(bad), Err(InvalidUid), "{bad:?}");
        }
        assert_eq!(OrderUid::from_bytes(b"\xff"), Err(InvalidUid));
    }
}
