//! The MAC of an entry: shows that one of our processes wrote it.
//!
//! An attacker who can write to Redis can change an entry, but cannot compute its MAC. The MAC
//! covers the key of the entry (so an entry cannot be moved to another order), its version, whether
//! there is a document, and its bytes. An older entry of the same order still verifies.

use arrayvec::ArrayString;
use blake3::{Hash, Hasher, KEY_LEN};

use super::entry::PREFIX;
use crate::{
    config::{self, ConfigError},
    order::OrderUid,
};

/// Name of the variable with the keys.
const VARIABLE: &str = "CACHE_MAC_KEY";

/// What the variable must hold.
const EXPECTED: &str = "write 64 hex digits, or two such keys separated by a comma";

/// Text of a MAC: 64 hex digits.
pub(super) type MacText = ArrayString<{ 2 * blake3::OUT_LEN }>;

/// The keys of `CACHE_MAC_KEY`. The first one signs; entries signed with the second one verify too.
#[derive(Clone)]
pub struct MacKeys {
    signing: [u8; KEY_LEN],
    also: Option<[u8; KEY_LEN]>,
}

impl MacKeys {
    /// Returns the keys of the configuration; none if it has none.
    ///
    /// # Errors
    /// If the variable is malformed.
    pub fn of(config: &config::Cache) -> Result<Option<Self>, ConfigError> {
        config.mac_key.as_deref().map(Self::parse).transpose()
    }

    /// Reads one key, or two that are separated by a comma.
    ///
    /// # Errors
    /// If the text is anything else. The error quotes nothing of it.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut keys = text.split(',').map(str::trim).enumerate();
        let mut next = || {
            keys.next().map(|(index, key)| {
                let found = key.chars().count();
                key_of(key).ok_or_else(|| match found {
                    64 => malformed(format!("key {} holds other characters", index + 1)),
                    1 => malformed(format!("key {} has 1 character", index + 1)),
                    _ => malformed(format!("key {} has {found} characters", index + 1)),
                })
            })
        };
        let signing = next().transpose()?;
        let also = next().transpose()?;
        match (signing, next()) {
            (Some(signing), None) => Ok(Self { signing, also }),
            _ => Err(malformed("holds more than two keys".to_owned())),
        }
    }

    /// Returns the MAC of an entry. `document` is none for an erased order.
    pub(super) fn sign(&self, uid: &OrderUid, version: &str, document: Option<&[u8]>) -> MacText {
        mac(&self.signing, uid, version, document).to_hex()
    }

    /// Returns whether `text` is the MAC of this entry under one of the keys. Takes the same time
    /// for every wrong MAC.
    pub(super) fn verify(
        &self,
        uid: &OrderUid,
        version: &str,
        document: Option<&[u8]>,
        text: &[u8],
    ) -> bool {
        let Ok(held) = Hash::from_hex(text) else {
            return false;
        };
        // The comparison of hashes takes constant time.
        let signed_with = |key| mac(key, uid, version, document) == held;
        signed_with(&self.signing) || self.also.as_ref().is_some_and(signed_with)
    }
}

/// Hides the keys.
impl std::fmt::Debug for MacKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKeys")
    }
}

/// Returns the key in 64 hex digits.
fn key_of(text: &str) -> Option<[u8; KEY_LEN]> {
    Hash::from_hex(text).ok().map(|key| *key.as_bytes())
}

fn malformed(found: String) -> ConfigError {
    ConfigError::malformed(VARIABLE, format!("{found}; {EXPECTED}"))
}

/// No uid and no version holds a zero byte, so two different entries never give the same input.
fn mac(key: &[u8; KEY_LEN], uid: &OrderUid, version: &str, document: Option<&[u8]>) -> Hash {
    let mut hasher = Hasher::new_keyed(key);
    hasher.update(PREFIX.as_bytes());
    hasher.update(uid.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(version.as_bytes());
    match document {
        Some(document) => hasher.update(&[0, 1]).update(document),
        None => hasher.update(&[0, 0]),
    };
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "0000001637907727000-0000000000000000042-0000000005";

    fn uid(text: &str) -> OrderUid {
        OrderUid::parse(text).unwrap()
    }

    fn keys(text: &str) -> MacKeys {
        MacKeys::parse(text).unwrap()
    }

    fn key(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn a_mac_covers_the_uid_the_version_and_the_document() {
        let keys = keys(&key('a'));
        let mac = keys.sign(&uid("u"), VERSION, Some(b"{}"));
        assert_eq!(mac.len(), 64);
        let verify = |uid: &str, version, document| {
            keys.verify(&self::uid(uid), version, document, mac.as_bytes())
        };
        assert!(verify("u", VERSION, Some(b"{}")));
        let newer = VERSION.replace("05", "06");
        assert!(!verify("v", VERSION, Some(b"{}")));
        assert!(!verify("u", &newer, Some(b"{}")));
        assert!(!verify("u", VERSION, Some(b"{} ")));
        assert!(!verify("u", VERSION, Some(b"")));
        assert!(!verify("u", VERSION, None));
        let erased = keys.sign(&uid("u"), VERSION, None);
        assert!(keys.verify(&uid("u"), VERSION, None, erased.as_bytes()));
        assert!(!keys.verify(&uid("u"), VERSION, Some(b""), erased.as_bytes()));
        for text in ["", "zz", &mac[1..], &format!("{mac}0")] {
            assert!(!keys.verify(&uid("u"), VERSION, Some(b"{}"), text.as_bytes()));
        }
    }

    /// Processes of other releases must compute the same MAC.
    #[test]
    fn the_mac_of_an_entry_never_changes() {
        let mac = keys(&key('a')).sign(&uid("u"), VERSION, Some(b"{}"));
        assert_eq!(
            mac.as_str(),
            "48bb94fb09dcbf94162808f453145bbeb318e38da5d2c2952cc7489cf824f364"
        );
    }

    #[test]
    fn the_first_key_signs_and_both_verify() {
        let (old, new) = (keys(&key('a')), keys(&key('b')));
        let both = keys(&format!("{}, {}", key('b'), key('a')));
        let sign = |keys: &MacKeys| keys.sign(&uid("u"), VERSION, None);
        let verify =
            |keys: &MacKeys, mac: &MacText| keys.verify(&uid("u"), VERSION, None, mac.as_bytes());
        assert_eq!(sign(&both), sign(&new));
        assert!(verify(&both, &sign(&old)) && verify(&both, &sign(&new)));
        assert!(!verify(&old, &sign(&new)) && !verify(&new, &sign(&old)));
    }

    #[test]
    fn an_error_says_what_to_write_and_quotes_no_key() {
        let (short, other) = ("a".repeat(63), "x".repeat(64));
        let three = [key('a'), key('b'), key('c')].join(",");
        for (text, found) in [
            ("", "key 1 has 0 characters"),
            (short.as_str(), "key 1 has 63 characters"),
            (&other, "key 1 holds other characters"),
            (&format!("{},", key('a')), "key 2 has 0 characters"),
            (&three, "holds more than two keys"),
        ] {
            let error = MacKeys::parse(text).unwrap_err().to_string();
            let expected = "write 64 hex digits, or two such keys separated by a comma";
            assert_eq!(error, format!("CACHE_MAC_KEY: {found}; {expected}"));
        }
        assert_eq!(format!("{:?}", keys(&key('a'))), "MacKeys");
        assert!(MacKeys::parse(&key('A')).is_ok(), "capital digits");
    }
}
