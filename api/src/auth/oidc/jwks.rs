//! The public keys of the issuer (RFC 7517), and signatures by them.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    TokenRejection,
    token::{Algorithm, Token, decode_member},
};

/// Maximum number of keys. Issuers publish fewer than ten.
const MAX_KEYS: usize = 100;

/// Sizes of an RSA modulus, in bits, for which a signature counts.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A public key that verifies signatures. The key decides about the algorithm, not the token: a
/// token cannot have an RSA key used as the secret of an HMAC.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    /// Modulus and exponent, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed point.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Material {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }
}

/// Why a key of the issuer is not used.
#[derive(Debug, PartialEq, Eq)]
enum Unusable {
    /// The key has another purpose or algorithm.
    Other,
    /// The key would be ours, but is malformed or weak.
    Defective(String),
}

/// A document with keys, as read.
#[derive(Debug, Default)]
pub(super) struct KeyDocument {
    /// The keys that the api uses.
    pub(super) keys: Vec<Key>,
    /// What is wrong with the others, except those for another purpose.
    pub(super) defects: Vec<String>,
}

impl KeyDocument {
    /// Reads a key set.
    ///
    /// # Errors
    /// Returns what is wrong with the document, or that it has no key for the api.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }

        let Ok(Set { keys }) = serde_json::from_slice(json) else {
            return Err("not a JSON Web Key Set".to_owned());
        };
        if keys.len() > MAX_KEYS {
            let found = keys.len();
            return Err(format!("{found} keys; expected at most {MAX_KEYS}"));
        }
        let mut document = Self::default();
        for key in &keys {
            match Key::parse(key) {
                Ok(key) => document.keys.push(key),
                Err(Unusable::Other) => {}
                Err(Unusable::Defective(defect)) => document.defects.push(defect),
            }
        }
        match document.keys.is_empty() {
            false => Ok(document),
            true => Err(format!(
                "none of its {} keys is usable; expected a key for RS256 (2048 bits or more), \
                 ES256 or EdDSA (Ed25519){}{}",
                keys.len(),
                if document.defects.is_empty() {
                    ""
                } else {
                    ": "
                },
                document.defects.join(", ")
            )),
        }
    }
}

impl Key {
    fn parse(key: &Value) -> Result<Self, Unusable> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let operations = key.get("key_ops").and_then(Value::as_array);
        let is_for_verification = match (text("use"), operations) {
            (Some(purpose), _) => purpose == "sig",
            (None, Some(operations)) => operations.iter().any(|operation| operation == "verify"),
            (None, None) => true,
        };
        let material = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => rsa as fn(&Value) -> Result<Material, &'static str>,
            (Some("EC"), Some("P-256")) => p256,
            (Some("OKP"), Some("Ed25519")) => ed25519,
            _ => return Err(Unusable::Other),
        };
        if !is_for_verification {
            return Err(Unusable::Other);
        }
        let id = text("kid").map(str::to_owned);
        let material = material(key).map_err(|defect| {
            let id = id.as_deref().unwrap_or("(unnamed)");
            Unusable::Defective(format!("key {id:?}: {defect}"))
        })?;
        // The key may allow fewer algorithms than its type does.
        match text("alg").is_none_or(|name| Algorithm::named(name) == Some(material.algorithm())) {
            true => Ok(Self { id, material }),
            false => Err(Unusable::Other),
        }
    }

    /// Returns whether `signature` is one of `message` by this key.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Material::Ed25519(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

fn rsa(key: &Value) -> Result<Material, &'static str> {
    let number = |name| {
        let bytes = decode_member(key.get(name))?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes[zeros..].to_vec())
    };
    let (Some(n), Some(e)) = (number("n"), number("e")) else {
        return Err("n or e is malformed");
    };
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    match RSA_BITS.contains(&bits) {
        true => Ok(Material::Rsa { n, e }),
        false => Err("the RSA modulus has fewer than 2048 or more than 8192 bits"),
    }
}

fn p256(key: &Value) -> Result<Material, &'static str> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = decode_member(key.get(name)).filter(|bytes| bytes.len() == 32);
        point.extend(coordinate.ok_or("x or y is malformed")?);
    }
    Ok(Material::P256(point))
}

fn ed25519(key: &Value) -> Result<Material, &'static str> {
    let point = decode_member(key.get("x")).filter(|bytes| bytes.len() == 32);
    Ok(Material::Ed25519(point.ok_or("x is malformed")?))
}

/// Verifies the signature of `token` by the key that its header names.
///
/// # Errors
/// Returns [`TokenRejection::UnknownKey`] if no key has that name and fits the algorithm, or if the
/// token names none and there is not exactly one; [`TokenRejection::Signature`] if the signature is
/// wrong.
pub(super) fn verify(keys: &[Key], token: &Token<'_>) -> Result<(), TokenRejection> {
    let fitting = keys
        .iter()
        .filter(|key| key.material.algorithm() == token.algorithm);
    let candidates: Vec<&Key> = match &token.key_id {
        Some(_) => fitting.filter(|key| key.id == token.key_id).collect(),
        None => fitting.collect(),
    };
    match candidates[..] {
        [key] if key.verifies(token.signed, &token.signature) => Ok(()),
        [_] => Err(TokenRejection::Signature),
        // Two keys of one name are a fault of the issuer.
        _ => Err(TokenRejection::UnknownKey),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The key of RFC 7515, A.2.
    const RSA_N: &str = "\
        ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJ\
        PMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0\
        LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uD\
        Zlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2\
        PAcDTW9gb54h4FRWyuXpoQ";
    const RSA_SIGNED: &str = "\
        eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9\
        leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const RSA_SIGNATURE: &str = "\
        cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF\
        5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK\
        5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqt\
        FZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB\
        p0igcN_IoypGlUPQGe77Rw";

    fn rsa_key() -> Value {
        json!({"kty": "RSA", "n": RSA_N, "e": "AQAB"})
    }

    /// The key of RFC 7515, A.3.
    fn p256_key() -> Value {
        json!({
            "kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }

    /// The key of RFC 8037, A.4.
    fn ed25519_key() -> Value {
        json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        })
    }

    /// `key` with `value` as its member `name`.
    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn document(keys: &[Value]) -> Result<KeyDocument, String> {
        KeyDocument::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    /// Asserts that the key verifies the example of its RFC, and neither another message nor
    /// another signature.
    #[track_caller]
    fn assert_verifies(key: Value, message: &str, signature: &str) {
        let mut signature = decode_member(Some(&json!(signature))).unwrap();
        let key = Key::parse(&key).unwrap();
        assert!(key.verifies(message.as_bytes(), &signature));
        assert!(!key.verifies(format!("{message} ").as_bytes(), &signature));
        signature[9] ^= 1;
        assert!(!key.verifies(message.as_bytes(), &signature));
        assert!(!key.verifies(message.as_bytes(), &[]));
    }

    #[test]
    fn the_examples_of_the_rfcs_verify() {
        assert_verifies(rsa_key(), RSA_SIGNED, RSA_SIGNATURE);
        assert_verifies(
            p256_key(),
            &RSA_SIGNED.replace("eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJFUzI1NiJ9"),
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXF\
             CgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        );
        assert_verifies(
            ed25519_key(),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6d\
             WbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        );
    }

    #[test]
    fn keys_for_another_purpose_are_skipped() {
        for other in [
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "EC", "crv": "P-384", "x": "", "y": ""}),
            json!({"kty": "OKP", "crv": "X25519", "x": ""}),
            with(rsa_key(), "use", json!("enc")),
            with(rsa_key(), "alg", json!("RSA-OAEP")),
            with(rsa_key(), "alg", json!("PS256")),
            with(rsa_key(), "alg", json!("HS256")),
            with(p256_key(), "key_ops", json!(["deriveKey"])),
            json!("text"),
        ] {
            let document = document(&[other.clone(), p256_key()]).unwrap();
            assert_eq!(document.keys.len(), 1, "{other}");
            assert!(
                document.defects.is_empty(),
                "{other}: {:?}",
                document.defects
            );
        }
        for (name, value) in [
            ("use", json!("sig")),
            ("alg", json!("RS256")),
            ("key_ops", json!(["verify"])),
        ] {
            assert!(Key::parse(&with(rsa_key(), name, value)).is_ok(), "{name}");
        }
    }

    #[test]
    fn weak_and_malformed_keys_are_named() {
        // 1032 bits, and 2044.
        let short = RSA_N[..172].to_owned();
        let one_less = RSA_N.replacen("of", "Df", 1);
        for (key, defect) in [
            (with(rsa_key(), "n", json!(short)), "2048"),
            (with(rsa_key(), "n", json!(one_less)), "2048"),
            (with(rsa_key(), "n", json!("")), "2048"),
            (with(rsa_key(), "e", json!("A+A=")), "n or e"),
            (with(p256_key(), "x", json!("AQAB")), "x or y"),
            (with(ed25519_key(), "x", json!(7)), "x is malformed"),
        ] {
            let found = document(&[with(key, "kid", json!("k1")), ed25519_key()]).unwrap();
            assert_eq!(found.keys.len(), 1);
            let [found] = &found.defects[..] else {
                panic!("{:?}", found.defects)
            };
            assert!(found.contains("k1") && found.contains(defect), "{found}");
        }
    }

    #[test]
    fn a_document_without_a_usable_key_is_an_error() {
        for (json, problem) in [
            ("<html>", "not a JSON Web Key Set"),
            ("{}", "not a JSON Web Key Set"),
            (r#"{"keys":[]}"#, "none of its 0 keys"),
            (r#"{"keys":[{"kty":"RSA"}]}"#, "n or e is malformed"),
        ] {
            let error = KeyDocument::parse(json.as_bytes()).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        let many = vec![p256_key(); MAX_KEYS + 1];
        assert!(document(&many).unwrap_err().contains("101 keys"));
    }

    /// Verifies a token with this header, which no key has signed.
    fn rejection(keys: &[Value], header: &Value) -> TokenRejection {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let token = format!("{header}.e30.AAAA");
        let token = Token::parse(token.as_bytes()).unwrap();
        verify(&document(keys).unwrap().keys, &token).unwrap_err()
    }

    #[test]
    fn the_name_and_the_algorithm_select_one_key() {
        let keys = [
            with(rsa_key(), "kid", json!("a")),
            with(p256_key(), "kid", json!("a")),
            with(ed25519_key(), "kid", json!("b")),
        ];
        for (header, reason) in [
            (
                json!({"alg": "RS256", "kid": "a"}),
                TokenRejection::Signature,
            ),
            (
                json!({"alg": "ES256", "kid": "a"}),
                TokenRejection::Signature,
            ),
            (json!({"alg": "ES256"}), TokenRejection::Signature),
            (
                json!({"alg": "EdDSA", "kid": "a"}),
                TokenRejection::UnknownKey,
            ),
            (
                json!({"alg": "RS256", "kid": "b"}),
                TokenRejection::UnknownKey,
            ),
            (
                json!({"alg": "RS256", "kid": ""}),
                TokenRejection::UnknownKey,
            ),
        ] {
            assert_eq!(rejection(&keys, &header), reason, "{header}");
        }
        // Without a name, two keys of an algorithm are ambiguous.
        let two = [p256_key(), with(p256_key(), "kid", json!("a"))];
        let header = json!({"alg": "ES256"});
        assert_eq!(rejection(&two, &header), TokenRejection::UnknownKey);
    }
}
