//! Decides whether what Redis holds under the key of an order is an entry of ours.
//!
//! Redis is not trusted: an attacker who can write to it can put anything there. [`Reply::check`]
//! is the only way from a reply to a [`Cached`], so every entry in use has passed it:
//!
//! - The version has our form.
//! - The document is no larger than any of ours.
//! - The document is a JSON object that begins with the uid of the key, so it is not the document
//!   of another order.
//! - If there are keys, the MAC is right. Without keys, a forged document with the right uid
//!   passes.

use bytes::Bytes;
use redis::{FromRedisValue, ParsingError, Value};

use super::mac::MacKeys;
use crate::order::{DocumentVersion, MAX_VALUE_BYTES, OrderUid};

/// Maximum bytes of a document. A record has at most half of them. Its document has no blanks, so
/// it is not larger; the rest is for the fields of newer shapes.
const MAX_DOCUMENT: usize = 2 * MAX_VALUE_BYTES;

/// Bytes of a text by which a [`Sighting`] recognises an entry. A version and a MAC are not longer.
const SIGHTED: usize = 64;

/// An entry of an order in Redis that passed the check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cached {
    /// The version of the order, and the shape of the document.
    pub version: DocumentVersion,
    /// The bytes that the api returns; none for an erased order.
    pub document: Option<Bytes>,
}

impl Cached {
    /// Creates what a check would return.
    #[cfg(any(test, feature = "testing"))]
    pub fn unchecked(version: DocumentVersion, document: Option<Bytes>) -> Self {
        Self { version, document }
    }
}

/// What is wrong with the content of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("the key does not hold a hash")]
    Type,
    #[error("the field version is not a version")]
    Version,
    #[error("the field json has {0} bytes, more than any document")]
    Size(usize),
    #[error("the field json is not a document of this order")]
    Document,
    #[error("the field mac is missing; a process without CACHE_MAC_KEY wrote it")]
    NoMac,
    #[error("the field mac is wrong; it is forged, or signed with a key that this process lacks")]
    Mac,
}

impl Flaw {
    /// Returns whether the content has our form, but its origin is unknown.
    pub(super) fn is_unverified(self) -> bool {
        matches!(self, Self::NoMac | Self::Mac)
    }
}

/// What recognises the content of a key, without its document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// The first bytes of `version`.
    pub(super) version: Vec<u8>,
    /// The length of `json`.
    pub(super) length: usize,
    /// The first bytes of `mac`; none if the reader has no keys, and did not read it.
    pub(super) mac: Option<Vec<u8>>,
}

/// Content of a key that is not an entry of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) flaw: Flaw,
    pub(super) sighting: Sighting,
}

impl Rejected {
    /// Content that is not a hash.
    pub(super) fn not_a_hash() -> Self {
        Self {
            flaw: Flaw::Type,
            sighting: Sighting {
                version: Vec::new(),
                length: 0,
                mac: None,
            },
        }
    }
}

/// The reply to `HMGET key version json [mac]`, parsed without copying the document. None if there
/// is no version.
pub(super) struct Reply(Option<Fields>);

struct Fields {
    version: Vec<u8>,
    json: Option<Vec<u8>>,
    mac: Option<Vec<u8>>,
}

impl FromRedisValue for Reply {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let Value::Array(values) = value else {
            return Err("an array was expected".into());
        };
        let mut values = values.into_iter().map(|value| match value {
            Value::BulkString(text) => Ok(Some(text)),
            Value::Nil => Ok(None),
            _ => Err("a string was expected"),
        });
        let mut next = || values.next().unwrap_or(Ok(None));
        let (version, json, mac) = (next()?, next()?, next()?);
        Ok(Self(version.map(|version| Fields { version, json, mac })))
    }
}

impl Reply {
    /// Returns the entry of the order `uid`, or none if there is none. It may have any shape.
    ///
    /// # Errors
    /// If the content of the key is not an entry of ours for this order.
    pub(super) fn check(
        self,
        uid: &OrderUid,
        keys: Option<&MacKeys>,
    ) -> Result<Option<Cached>, Rejected> {
        let Some(fields) = self.0 else {
            return Ok(None);
        };
        match fields.flaw(uid, keys) {
            Ok(version) => Ok(Some(Cached {
                version,
                document: fields.json.map(Bytes::from),
            })),
            Err(flaw) => Err(Rejected {
                flaw,
                sighting: fields.sighting(keys.is_some()),
            }),
        }
    }
}

impl Fields {
    /// Returns the version of an entry of ours, or what is wrong.
    fn flaw(&self, uid: &OrderUid, keys: Option<&MacKeys>) -> Result<DocumentVersion, Flaw> {
        let text = str::from_utf8(&self.version).map_err(|_| Flaw::Version)?;
        let version = text.parse().map_err(|_| Flaw::Version)?;
        let document = self.json.as_deref();
        if let Some(document) = document {
            if document.len() > MAX_DOCUMENT {
                return Err(Flaw::Size(document.len()));
            }
            if !is_document(document, uid) {
                return Err(Flaw::Document);
            }
        }
        match (keys, self.mac.as_deref()) {
            (None, _) => Ok(version),
            (Some(_), None) => Err(Flaw::NoMac),
            (Some(keys), Some(mac)) if keys.verify(uid, text, document, mac) => Ok(version),
            (Some(_), Some(_)) => Err(Flaw::Mac),
        }
    }

    fn sighting(&self, has_keys: bool) -> Sighting {
        let first = |text: &[u8]| text[..text.len().min(SIGHTED)].to_vec();
        Sighting {
            version: first(&self.version),
            length: self.json.as_ref().map_or(0, Vec::len),
            mac: has_keys.then(|| first(self.mac.as_deref().unwrap_or_default())),
        }
    }
}

/// Returns whether `json` begins and ends like a document of `uid`: in every shape, `order_uid` is
/// the first field.
fn is_document(json: &[u8], uid: &OrderUid) -> bool {
    json.strip_prefix(br#"{"order_uid":""#)
        .and_then(|rest| rest.strip_prefix(uid.as_str().as_bytes()))
        .is_some_and(|rest| rest.starts_with(br#"","#) && rest.ends_with(b"}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::sample::Generator;

    const VERSION: &str = "0000001637907727000-0000000000000000042-0000000005";

    fn uid(text: &str) -> OrderUid {
        OrderUid::parse(text).unwrap()
    }

    fn document(uid: &str) -> Vec<u8> {
        let mut order = Generator::new(1, 1..=1).next().unwrap();
        order.order_uid = uid.into();
        order.to_json()
    }

    fn reply(version: &str, json: Option<&[u8]>, mac: Option<&str>) -> Reply {
        let text = |text: &[u8]| Value::BulkString(text.to_vec());
        let field = |field: Option<&[u8]>| field.map_or(Value::Nil, text);
        let values = vec![
            text(version.as_bytes()),
            field(json),
            field(mac.map(str::as_bytes)),
        ];
        Reply::from_redis_value(Value::Array(values)).unwrap()
    }

    fn flaw(reply: Reply, keys: Option<&MacKeys>) -> Option<Flaw> {
        reply.check(&uid("u"), keys).err().map(|found| found.flaw)
    }

    #[test]
    fn a_document_of_the_order_and_its_erasure_pass() {
        let json = document("u");
        let cached = reply(VERSION, Some(&json), None).check(&uid("u"), None);
        let expected = Cached::unchecked(VERSION.parse().unwrap(), Some(Bytes::from(json.clone())));
        assert_eq!(cached, Ok(Some(expected)));
        assert_eq!(flaw(reply(VERSION, None, None), None), None);
        let newer_shape = format!("{VERSION}-255");
        assert_eq!(flaw(reply(&newer_shape, Some(&json), None), None), None);
        let nothing = Value::Array(vec![Value::Nil, Value::Nil]);
        let nothing = Reply::from_redis_value(nothing).unwrap();
        assert_eq!(nothing.check(&uid("u"), None), Ok(None));
    }

    #[test]
    fn the_largest_document_passes_and_a_larger_one_does_not() {
        let padded = |size: usize| {
            let mut json = br#"{"order_uid":"u","x":""#.to_vec();
            json.resize(size - 2, b'x');
            json.extend(br#""}"#);
            flaw(reply(VERSION, Some(&json), None), None)
        };
        assert_eq!(padded(MAX_DOCUMENT), None);
        assert_eq!(padded(MAX_DOCUMENT + 1), Some(Flaw::Size(MAX_DOCUMENT + 1)));
    }

    #[test]
    fn the_script_that_writes_has_the_same_limit() {
        let script = include_str!("compare_and_set.lua");
        assert!(script.contains(&format!("local MAX_DOCUMENT = {MAX_DOCUMENT}\n")));
    }

    #[test]
    fn other_contents_are_rejected() {
        let truncated = &document("u")[..100];
        for json in [
            &b"<script>alert(1)</script>"[..],
            b"",
            b"{}",
            br#"{"order_uid":"u"}"#,
            br#"{"order_uid":"u2","x":1}"#,
            br#"{"x":1,"order_uid":"u"}"#,
            &document("other"),
            truncated,
        ] {
            let found = flaw(reply(VERSION, Some(json), None), None);
            assert_eq!(found, Some(Flaw::Document), "{}", json.escape_ascii());
        }
        for version in [
            "",
            "1",
            "zzz",
            &format!("{VERSION}-1"),
            &VERSION.replace('0', "z"),
        ] {
            let found = flaw(reply(version, None, None), None);
            assert_eq!(found, Some(Flaw::Version), "{version}");
        }
    }

    #[test]
    fn with_keys_only_a_right_mac_passes() {
        let keys = MacKeys::parse(&"a".repeat(64)).unwrap();
        let other = MacKeys::parse(&"b".repeat(64)).unwrap();
        let json = document("u");
        let mac = keys.sign(&uid("u"), VERSION, Some(&json));
        let check = |mac, keys| flaw(reply(VERSION, Some(&json), mac), Some(keys));
        assert_eq!(check(Some(mac.as_str()), &keys), None);
        assert_eq!(check(Some(mac.as_str()), &other), Some(Flaw::Mac));
        assert_eq!(check(Some(""), &keys), Some(Flaw::Mac));
        assert_eq!(check(None, &keys), Some(Flaw::NoMac));
        let erased = reply(VERSION, None, Some(&mac));
        assert_eq!(flaw(erased, Some(&keys)), Some(Flaw::Mac));
    }

    #[test]
    fn a_sighting_is_short_and_has_the_length_of_the_document() {
        let (huge, keys) = (
            "v".repeat(1 << 20),
            MacKeys::parse(&"a".repeat(64)).unwrap(),
        );
        let sighting = |keys| {
            let checked = reply(&huge, Some(b"{}"), Some(&huge)).check(&uid("u"), keys);
            checked.unwrap_err().sighting
        };
        let expected = Sighting {
            version: vec![b'v'; SIGHTED],
            length: 2,
            mac: None,
        };
        assert_eq!(sighting(None), expected);
        assert_eq!(sighting(Some(&keys)).mac, Some(expected.version));
    }
}
