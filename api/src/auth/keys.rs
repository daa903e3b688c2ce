//! API keys from a file.
//!
//! The file holds one key per line, `NAME sha256:HEX SCOPE,SCOPE`. HEX is the SHA-256 of the token
//! that the caller sends. Blank lines and lines that begin with `#` are skipped.

use std::{fmt, path::Path};

use sha2::{Digest, Sha256};
use shared::config::{ConfigError, read_text};
use strum::VariantNames;
use subtle::ConstantTimeEq;

use super::{Caller, Denial, Scope, Scopes};

/// The variable that names the key file.
const VARIABLE: &str = "API_KEYS_FILE";

/// The valid keys.
pub struct Keys {
    keys: Vec<Key>,
}

struct Key {
    caller: Caller,
    digest: [u8; 32],
}

/// Prints names, never digests.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| &key.caller.name))
            .finish()
    }
}

impl Keys {
    /// Reads the key file at `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, holds no key, or has a malformed line. The
    /// error names the number of the line and never quotes it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path).map_err(|source| ConfigError::SecretFile {
            variable: VARIABLE.to_owned(),
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(&text).map_err(|problem| {
            ConfigError::malformed(VARIABLE, format!("{}: {problem}", path.display()))
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key =
                parse_line(line).map_err(|problem| format!("line {}: {problem}", index + 1))?;
            if keys
                .iter()
                .any(|other| other.caller.name == key.caller.name)
            {
                return Err(format!(
                    "line {}: an earlier line has the same name; give each key its own",
                    index + 1
                ));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err("the file has no key; add a line NAME sha256:HEX SCOPE".to_owned());
        }
        Ok(Self { keys })
    }

    /// Returns the caller of `authorization`, the value of the header, if its key has `scope`.
    ///
    /// # Errors
    /// Returns a [`Denial`] if the token is missing or unknown, or lacks the scope.
    pub fn check(&self, authorization: Option<&[u8]>, scope: Scope) -> Result<&Caller, Denial> {
        let token = authorization
            .and_then(bearer_token)
            .ok_or(Denial::Unauthorized)?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        // Compares every key, and each digest completely, so that the duration reveals nothing
        // about the keys.
        let mut found = None;
        for key in &self.keys {
            if key.digest.ct_eq(&digest).into() {
                found = Some(key);
            }
        }
        let key = found.ok_or(Denial::Unauthorized)?;
        if key.caller.scopes.contains(scope) {
            Ok(&key.caller)
        } else {
            Err(Denial::Forbidden)
        }
    }
}

/// The token of `Bearer TOKEN`. The scheme name is case-insensitive (RFC 9110).
fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked(7)?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn parse_line(line: &str) -> Result<Key, String> {
    let mut words = line.split_whitespace();
    let (Some(name), Some(digest), Some(scopes), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("not three words; write NAME sha256:HEX SCOPE,SCOPE".to_owned());
    };
    let scopes: Result<Scopes, _> = scopes.split(',').map(str::parse::<Scope>).collect();
    Ok(Key {
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
    })
}

fn parse_digest(word: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(word.strip_prefix("sha256:")?, &mut digest).ok()?;
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `secret`.
    const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn keys() -> Keys {
        Keys::parse(&format!(
            "# readers\n\n  support sha256:{} orders:read\n",
            DIGEST.to_uppercase()
        ))
        .unwrap()
    }

    #[test]
    fn a_valid_token_identifies_its_caller() {
        let caller = Caller {
            name: "support".into(),
            scopes: [Scope::OrdersRead].into_iter().collect(),
            customer: None,
        };
        for header in ["Bearer secret", "bearer secret", "BEARER  secret "] {
            assert_eq!(
                keys().check(Some(header.as_bytes()), Scope::OrdersRead),
                Ok(&caller),
                "{header}"
            );
        }
    }

    #[test]
    fn a_missing_or_unknown_token_is_unauthorized() {
        for header in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer wrong"),
            Some("Basic secret"),
            Some("secret"),
        ] {
            let answer = keys()
                .check(header.map(str::as_bytes), Scope::OrdersRead)
                .map(|_| ());
            assert_eq!(answer, Err(Denial::Unauthorized), "{header:?}");
        }
    }

    #[test]
    fn a_key_without_the_scope_is_forbidden() {
        let mut keys = keys();
        keys.keys[0].caller.scopes = Scopes::default();
        assert_eq!(
            keys.check(Some(b"Bearer secret"), Scope::OrdersRead)
                .map(|_| ()),
            Err(Denial::Forbidden)
        );
    }

    #[test]
    fn a_malformed_line_is_named_by_number_and_not_quoted() {
        for (line, problem) in [
            ("support", "three words"),
            (
                &format!("support sha256:{DIGEST} orders:read more"),
                "three words",
            ),
            ("support md5:0123 orders:read", "64 hexadecimal digits"),
            ("support sha256:0123 orders:read", "64 hexadecimal digits"),
            (
                &format!("support sha256:{}g orders:read", &DIGEST[1..]),
                "64 hexadecimal digits",
            ),
            (&format!("support sha256:{DIGEST} orders:write"), "scope"),
            (
                &format!("a sha256:{DIGEST} orders:read\na sha256:{DIGEST} orders:read"),
                "same name",
            ),
        ] {
            let error = Keys::parse(&format!("# comment\n{line}\n")).unwrap_err();
            let number = 1 + line.lines().count();
            assert!(
                error.starts_with(&format!("line {number}: ")) && error.contains(problem),
                "{error}"
            );
            assert!(
                !error.contains("support") && !error.contains("0123"),
                "{error}"
            );
        }
        assert!(Keys::parse("# nothing\n").unwrap_err().contains("no key"));
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_name() {
        let path = std::env::temp_dir().join(format!("api-keys-mark-{}", std::process::id()));
        let text = format!("\u{feff}support sha256:{DIGEST} orders:read\r\n");
        std::fs::write(&path, text).unwrap();
        let keys = Keys::read(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&*keys.unwrap().keys[0].caller.name, "support");
    }

    #[test]
    fn a_missing_file_names_the_variable() {
        let error = Keys::read(Path::new("/nowhere/keys"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("API_KEYS_FILE: cannot read /nowhere/keys"),
            "{error}"
        );
    }
}
