//! The parts of a token (RFC 7515, compact serialization), before its signature is verified.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{TokenRejection, json::Members};

/// Longest token in bytes. Tokens of Microsoft Entra that list groups have some 4 kB.
pub(super) const MAX_BYTES: usize = 8 * 1024;

/// Values of the header `typ`, without the prefix `application/` and in lower case: a JWT, or an
/// access token (RFC 9068). Tokens for another purpose, such as `logout+jwt`, have a type of their
/// own.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// A signature algorithm that the api accepts. Symmetric ones are not among them: a key that
/// verifies such signatures can also create them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Reads the name of an algorithm. RFC 9864 renames EdDSA with this curve to `Ed25519`.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A well-formed token, not verified.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// Algorithm of the signature.
    pub(super) algorithm: Algorithm,
    /// Name of the key that signed the token.
    pub(super) key_id: Option<String>,
    /// Claims.
    pub(super) claims: Members,
    /// The bytes that are signed.
    pub(super) signed: &'a [u8],
    /// Signature.
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// Returns an error if the token is too long or malformed, or if its header demands what the
    /// api does not support.
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, TokenRejection> {
        if token.len() > MAX_BYTES {
            return Err(TokenRejection::Malformed);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenRejection::Malformed);
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let header = Members::parse(&decode(header)?)?;
        let algorithm = header.text("alg")?.and_then(Algorithm::named);
        let algorithm = algorithm.ok_or(TokenRejection::Algorithm)?;
        // `crit` lists extensions without which the token has another meaning.
        if header.get("crit").is_some() || !has_known_type(&header)? {
            return Err(TokenRejection::Malformed);
        }
        Ok(Self {
            algorithm,
            key_id: header.text("kid")?.map(str::to_owned),
            claims: Members::parse(&decode(claims)?)?,
            signed,
            signature: decode(signature)?,
        })
    }
}

/// Returns whether the token is one for access to an api, as far as its header says.
fn has_known_type(header: &Members) -> Result<bool, TokenRejection> {
    let Some(kind) = header.text("typ")? else {
        return Ok(true);
    };
    let kind = kind.to_ascii_lowercase();
    let kind = kind.strip_prefix("application/").unwrap_or(&kind);
    Ok(TYPES.contains(&kind))
}

fn decode(part: &[u8]) -> Result<Vec<u8>, TokenRejection> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenRejection::Malformed)
}

/// Reads the bytes of a member of a key in base64url.
pub(super) fn decode_member(value: Option<&Value>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(value?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn token(header: &str) -> String {
        format!(
            "{}.{}.{}",
            encode(header),
            encode("{}"),
            encode("signature")
        )
    }

    #[test]
    fn a_token_has_three_parts() {
        let text = token(r#"{"alg":"ES256","kid":"k","typ":"JWT","jku":"https://evil"}"#);
        let parsed = Token::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.algorithm, Algorithm::Es256);
        assert_eq!(parsed.key_id.as_deref(), Some("k"));
        assert_eq!(parsed.signed, text.rsplit_once('.').unwrap().0.as_bytes());
        assert_eq!(parsed.signature, b"signature");
    }

    #[test]
    fn a_malformed_token_is_rejected() {
        let good = token(r#"{"alg":"ES256"}"#);
        assert!(Token::parse(good.as_bytes()).is_ok());
        let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
            unreachable!()
        };
        for bad in [
            "secret".to_owned(),
            String::new(),
            "..".to_owned(),
            format!("{header}.{claims}"),
            format!("{good}.more"),
            // The five parts of an encrypted token.
            format!("{good}.{claims}.{signature}"),
            format!("{header}=.{claims}.{signature}"),
            format!("{header}.{claims}.{signature}!"),
            format!("{header}.{claims}.{signature} "),
            format!("{header}.{}.{signature}", encode("[]")),
            format!(
                "{header}.{}.{signature}",
                encode(r#"{"sub":"a","sub":"b"}"#)
            ),
            token(r#"{"alg":"ES256","alg":"ES256"}"#),
            token(r#"{"alg":"ES256","kid":1}"#),
            token(r#"{"alg":1}"#),
            token(r#"{"alg":"ES256","typ":"logout+jwt"}"#),
            token(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#),
            token(r#"{"alg":"ES256","crit":[]}"#),
        ] {
            let parsed = Token::parse(bad.as_bytes()).map(|_| ());
            assert_eq!(parsed, Err(TokenRejection::Malformed), "{bad}");
        }
    }

    #[test]
    fn types_of_access_tokens_are_known() {
        for kind in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
            let text = token(&format!(r#"{{"alg":"ES256","typ":"{kind}"}}"#));
            assert!(Token::parse(text.as_bytes()).is_ok(), "{kind}");
        }
    }

    #[test]
    fn other_algorithms_are_rejected() {
        for algorithm in [
            "none", "None", "", "HS256", "HS512", "PS256", "ES384", "rs256",
        ] {
            let text = token(&format!(r#"{{"alg":"{algorithm}"}}"#));
            let parsed = Token::parse(text.as_bytes()).map(|_| ());
            assert_eq!(parsed, Err(TokenRejection::Algorithm), "{algorithm}");
        }
        let parsed = Token::parse(token("{}").as_bytes()).map(|_| ());
        assert_eq!(parsed, Err(TokenRejection::Algorithm));
        // An unsigned token has an empty signature.
        let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode("{}"));
        let parsed = Token::parse(unsigned.as_bytes()).map(|_| ());
        assert_eq!(parsed, Err(TokenRejection::Algorithm));
    }

    #[test]
    fn an_oversized_token_is_rejected() {
        let padded = |bytes: usize| {
            let text = token(r#"{"alg":"ES256"}"#);
            let missing = bytes - text.len();
            // Whole groups of four characters, so that the length is a valid one.
            assert_eq!(missing % 4, 0, "choose another header");
            text + &"A".repeat(missing)
        };
        let length = token(r#"{"alg":"ES256"}"#).len() % 4;
        let longest = MAX_BYTES - (MAX_BYTES - length) % 4;
        assert!(Token::parse(padded(longest).as_bytes()).is_ok());
        let parsed = Token::parse(padded(longest + 4).as_bytes()).map(|_| ());
        assert_eq!(parsed, Err(TokenRejection::Malformed));
    }
}
