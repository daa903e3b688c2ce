//! The keys of the key file.
//!
//! The file holds one key per line, `NAME sha256:HEX SCOPE,SCOPE [customer=ID] [expires=RFC3339]`.
//! HEX is the SHA-256 of the token that the caller sends. Blanks and `%` in ID are percent-encoded.
//! Blank lines and lines that begin with `#` are skipped.

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use shared::order::{Text, parse_time_rounded_up};
use strum::VariantNames;

use super::{Caller, Checked, Denial, Denied, Identity, Scope, Scopes, Usage, usage::RESERVED};

/// Maximum length of a name. It is a label of metrics and a field of each access log line.
const NAME_CHARS: usize = 64;

/// SHA-256 of a token.
type TokenDigest = [u8; 32];

/// A line of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    digest: TokenDigest,
    caller: Caller,
    expires: Option<SystemTime>,
}

/// The keys that are valid now.
///
/// They are found by the digest of the token. The duration of a lookup may reveal a part of a
/// digest, from which no token follows.
pub(super) struct Keys(HashMap<TokenDigest, Arc<Identity>>);

/// How many keys a change of the file concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: usize,
    /// Removed, or replaced by a line that differs in anything. Their streams end.
    pub(super) removed: usize,
}

/// Prints names, never digests.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.values().map(|identity| &identity.caller.name);
        f.debug_list().entries(names).finish()
    }
}

impl Keys {
    /// The keys of `entries`. Each has metrics in `usage`.
    pub(super) fn new(entries: Vec<Entry>, usage: &Usage) -> Self {
        Self(HashMap::new()).replaced(entries, usage).0
    }

    /// Returns the keys of `entries`, and how they differ from these. Keys that are the same in
    /// everything are kept, with their streams. All others are revoked.
    pub(super) fn replaced(&self, entries: Vec<Entry>, usage: &Usage) -> (Self, Difference) {
        let mut difference = Difference::default();
        let keys = entries.into_iter().map(|entry| {
            let known = self.0.get(&entry.digest);
            let kept = known
                .filter(|known| known.caller == entry.caller && known.expires == entry.expires);
            let identity = kept.cloned().unwrap_or_else(|| {
                difference.added += 1;
                let usage = usage.of_key(&entry.caller.name);
                Arc::new(Identity::new(entry.caller, entry.expires, usage))
            });
            (entry.digest, identity)
        });
        let keys: HashMap<_, _> = keys.collect();
        for (digest, old) in &self.0 {
            if keys.get(digest).is_none_or(|new| !Arc::ptr_eq(new, old)) {
                difference.removed += 1;
                old.revoke();
            }
        }
        (Self(keys), difference)
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether a key has this name.
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.0
            .values()
            .any(|identity| *identity.caller.name == *name)
    }

    /// Returns the key of `token`; `None` if it is unknown.
    pub(super) fn find(&self, token: &[u8], now: SystemTime) -> Option<Checked> {
        let digest: TokenDigest = Sha256::digest(token).into();
        let identity = self.0.get(&digest)?;
        Some(if identity.is_expired(now) {
            Err(Denied {
                reason: Denial::Expired,
                identity: Some(identity.clone()),
            })
        } else {
            Ok(identity.clone())
        })
    }

    /// Ends the streams of keys that have expired since the last call. Returns their names.
    pub(super) fn expire(&self, now: SystemTime) -> Vec<&str> {
        let expired = self
            .0
            .values()
            .filter(|identity| identity.is_expired(now) && !identity.revoked.is_cancelled());
        expired
            .map(|identity| {
                identity.revoke();
                &*identity.caller.name
            })
            .collect()
    }
}

/// Parses the text of a key file.
///
/// # Errors
/// Returns an error if the text holds no key or has a malformed line. The error names the number of
/// the line and never quotes it.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut names, mut digests) = (HashMap::new(), HashMap::new());
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = parse_line(line).map_err(|problem| format!("line {number}: {problem}"))?;
        if let Some(other) = names.insert(entry.caller.name.clone(), number) {
            return Err(format!(
                "line {number}: line {other} has the same name; give each key its own"
            ));
        }
        if let Some(other) = digests.insert(entry.digest, number) {
            return Err(format!(
                "line {number}: line {other} has the same token; give each key its own"
            ));
        }
        entries.push(entry);
    }
    if entries.is_empty() {
        return Err("the file has no key; add a line NAME sha256:HEX SCOPE".to_owned());
    }
    Ok(entries)
}

fn parse_line(line: &str) -> Result<Entry, String> {
    let mut words = line.split_whitespace();
    let (Some(name), Some(digest), Some(scopes)) = (words.next(), words.next(), words.next())
    else {
        return Err("fewer than three words; write NAME sha256:HEX SCOPE,SCOPE".to_owned());
    };
    if name.chars().count() > NAME_CHARS || name.chars().any(char::is_control) {
        return Err(format!(
            "the name has control characters or more than {NAME_CHARS} characters; shorten it"
        ));
    }
    if RESERVED.contains(&name) {
        return Err(format!(
            "the names {} are reserved for metrics; write another one",
            RESERVED.join(" and ")
        ));
    }
    let scopes: Result<Scopes, _> = scopes.split(',').map(str::parse::<Scope>).collect();
    let mut entry = Entry {
        digest: parse_digest(digest)
            .ok_or("the second word is not sha256: and 64 hexadecimal digits")?,
        caller: Caller {
            name: name.into(),
            scopes: scopes.map_err(|_| {
                let known = Scope::VARIANTS.join(", ");
                format!("the third word has an unknown scope; known scopes: {known}")
            })?,
            customer: None,
        },
        expires: None,
    };
    for option in words {
        parse_option(option, &mut entry)?;
    }
    Ok(entry)
}

fn parse_option(option: &str, entry: &mut Entry) -> Result<(), String> {
    let twice = |name| Err(format!("{name}= appears twice; write it once"));
    match option.split_once('=') {
        Some(("customer", _)) if entry.caller.customer.is_some() => return twice("customer"),
        Some(("customer", text)) => {
            let id = percent_decode_str(text).decode_utf8().ok();
            let id = id.filter(|id| Text::NAME.holds(id)).ok_or(
                "the text after customer= is no customer id; write 1 to 256 characters, with \
                 blanks and % percent-encoded",
            )?;
            entry.caller.customer = Some(id.as_ref().into());
        }
        Some(("expires", _)) if entry.expires.is_some() => return twice("expires"),
        Some(("expires", text)) => {
            let time = parse_time_rounded_up(text).ok_or(
                "the text after expires= is no RFC 3339 time; write expires=2027-01-31T00:00:00Z",
            )?;
            entry.expires = Some(time.into());
        }
        _ => {
            return Err(
                "an unknown word follows the scopes; write customer=ID, expires=TIME or nothing"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

fn parse_digest(word: &str) -> Option<TokenDigest> {
    let mut digest = [0; 32];
    hex::decode_to_slice(word.strip_prefix("sha256:")?, &mut digest).ok()?;
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;
    use crate::metrics::AccessFamilies;

    /// SHA-256 of `secret`.
    const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn usage() -> Usage {
        Usage::new(AccessFamilies::register(&Registry::new()).unwrap())
    }

    fn entry(options: &str) -> Entry {
        let line = format!("# readers\n\n  support sha256:{DIGEST} orders:read {options}\n");
        let mut entries = parse(&line).unwrap();
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }

    fn reason(checked: Option<Checked>) -> Option<Result<Arc<str>, Denial>> {
        checked.map(|checked| match checked {
            Ok(identity) => Ok(identity.caller.name.clone()),
            Err(denied) => Err(denied.reason),
        })
    }

    #[test]
    fn a_line_has_a_name_scopes_a_customer_and_a_time() {
        let plain = Caller {
            name: "support".into(),
            scopes: [Scope::OrdersRead].into_iter().collect(),
            customer: None,
        };
        assert_eq!((entry("").caller, entry("").expires), (plain.clone(), None));
        let upper = format!("support sha256:{} orders:read", DIGEST.to_uppercase());
        assert_eq!(parse(&upper).unwrap(), [entry("")]);
        let bound = entry("expires=2026-01-31T01:00:00+01:00 customer=ACME%20Ltd%25");
        assert_eq!(bound.caller.customer.as_deref(), Some("ACME Ltd%"));
        let expires = bound.expires.unwrap();
        let seconds = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(seconds.as_secs(), 1_769_817_600);
        let all = format!("a sha256:{DIGEST} orders:read,orders:list,orders:pii");
        let scopes = parse(&all).unwrap()[0].caller.scopes;
        assert!(scopes.contains(Scope::OrdersList) && scopes.contains(Scope::OrdersPii));
        assert!(!plain.scopes.contains(Scope::OrdersList));
    }

    #[test]
    fn a_token_finds_its_key_until_it_expires() {
        let keys = Keys::new(vec![entry("expires=2026-01-31T00:00:00Z")], &usage());
        let expires = entry("expires=2026-01-31T00:00:00Z").expires.unwrap();
        let before = expires - Duration::from_micros(1);
        assert_eq!(
            reason(keys.find(b"secret", before)),
            Some(Ok("support".into()))
        );
        assert_eq!(
            reason(keys.find(b"secret", expires)),
            Some(Err(Denial::Expired))
        );
        for token in [&b"wrong"[..], b"", b"secre", b"secret2"] {
            assert_eq!(reason(keys.find(token, before)), None);
        }
        assert!(keys.expire(before).is_empty());
        assert_eq!(keys.expire(expires), ["support"]);
        assert!(keys.expire(expires).is_empty(), "reported once");
    }

    #[test]
    fn a_changed_line_revokes_its_key_and_an_equal_one_keeps_it() {
        let usage = usage();
        let keys = Keys::new(vec![entry("")], &usage);
        let [old] = keys.0.values().collect::<Vec<_>>()[..] else {
            panic!("one key");
        };
        let (same, difference) = keys.replaced(vec![entry("")], &usage);
        assert_eq!(difference, Difference::default());
        assert!(!old.revoked.is_cancelled() && same.has_name("support"));
        let (_, difference) = keys.replaced(vec![entry("customer=c")], &usage);
        let both = Difference {
            added: 1,
            removed: 1,
        };
        assert_eq!(difference, both);
        assert!(old.revoked.is_cancelled());
        let (none, difference) = same.replaced(Vec::new(), &usage);
        assert_eq!((none.len(), difference.removed), (0, 1));
    }

    #[test]
    fn a_malformed_line_is_named_by_number_and_not_quoted() {
        let line = |rest: &str| format!("support sha256:{DIGEST} {rest}");
        let long = "x".repeat(NAME_CHARS + 1);
        for (line, problem) in [
            ("support".to_owned(), "three words"),
            (line(""), "three words"),
            (line("orders:read more"), "unknown word"),
            (line("orders:read owner=me"), "unknown word"),
            (line("orders:read expires=tomorrow"), "RFC 3339"),
            (line("orders:read expires=2026-01-31"), "RFC 3339"),
            (line("orders:read customer="), "customer id"),
            (line("orders:read customer=%FF"), "customer id"),
            (line("orders:read customer=a customer=b"), "twice"),
            (
                "support md5:0123 orders:read".to_owned(),
                "64 hexadecimal digits",
            ),
            (
                "support sha256:0123 orders:read".to_owned(),
                "64 hexadecimal digits",
            ),
            (
                format!("support sha256:{}g orders:read", &DIGEST[1..]),
                "64 hexadecimal digits",
            ),
            (line("orders:write"), "scope"),
            (line("orders:read,"), "scope"),
            (
                format!("{long} sha256:{DIGEST} orders:read"),
                "64 characters",
            ),
            (format!("oidc sha256:{DIGEST} orders:read"), "reserved"),
            (
                format!(
                    "{}\nsupport sha256:{} orders:read",
                    line("orders:read"),
                    "0".repeat(64)
                ),
                "same name",
            ),
            (
                format!("{}\nother sha256:{DIGEST} orders:read", line("orders:read")),
                "same token",
            ),
        ] {
            let error = parse(&format!("# comment\n{line}\n")).unwrap_err();
            let number = 1 + line.lines().count();
            assert!(
                error.starts_with(&format!("line {number}: ")) && error.contains(problem),
                "{error}"
            );
            for quoted in ["support", "0123", "tomorrow", "owner", long.as_str()] {
                assert!(!error.contains(quoted), "{error}");
            }
        }
        assert!(parse("# nothing\n").unwrap_err().contains("no key"));
    }
}
