//! What the claims of a token must be, and the caller that they describe.

use std::sync::Arc;

use serde_json::Value;
use shared::order::Text;

use super::{TokenRejection, json::Members};
use crate::auth::{Caller, Scope, Scopes};

/// How far the clocks of the issuer and of this process may differ, in seconds.
const SKEW: u64 = 60;

/// Longest name of a caller in bytes. OpenID Connect limits `sub` to 255.
const MAX_NAME_BYTES: usize = 255;

/// What the claims of a valid token say.
#[derive(Debug)]
pub(super) struct Expected {
    /// Value of `iss`.
    pub(super) issuer: String,
    /// Value of `aud`, or one of its values.
    pub(super) audience: String,
    /// The claim that binds a token to a customer.
    pub(super) customer_claim: Option<String>,
}

/// The result of a valid token.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) caller: Caller,
    /// When the token expires, the skew included: seconds after 1970.
    pub(super) expires_at: u64,
}

impl Expected {
    /// Checks the claims at `now`, seconds after 1970, and returns whom they describe.
    ///
    /// # Errors
    /// Returns the reason why the token is not valid for this api at this time.
    pub(super) fn check(&self, claims: &Members, now: u64) -> Result<Accepted, TokenRejection> {
        if claims.text("iss")? != Some(&self.issuer) {
            return Err(TokenRejection::Issuer);
        }
        if !self.is_for_us(claims.get("aud"))? {
            return Err(TokenRejection::Audience);
        }
        let expires = time(claims, "exp")?.ok_or(TokenRejection::Malformed)?;
        let expires_at = expires.saturating_add(SKEW);
        if now >= expires_at {
            return Err(TokenRejection::Expired);
        }
        for claim in ["nbf", "iat"] {
            let from = time(claims, claim)?;
            if from.is_some_and(|from| from > now.saturating_add(SKEW)) {
                return Err(TokenRejection::NotYetValid);
            }
        }
        Ok(Accepted {
            caller: Caller {
                name: name(claims)?,
                scopes: scopes(claims)?,
                customer: self.customer(claims)?,
            },
            expires_at,
        })
    }

    /// Returns whether our audience is `aud`, or one of its values.
    fn is_for_us(&self, audience: Option<&Value>) -> Result<bool, TokenRejection> {
        match audience {
            None => Ok(false),
            Some(Value::String(audience)) => Ok(*audience == self.audience),
            Some(Value::Array(audiences)) => {
                let mut found = false;
                for audience in audiences {
                    let audience = audience.as_str().ok_or(TokenRejection::Malformed)?;
                    found |= audience == self.audience;
                }
                Ok(found)
            }
            Some(_) => Err(TokenRejection::Malformed),
        }
    }

    /// Returns the customer to whom the token is bound. A token without the claim is not bound. One
    /// with an unusable value is rejected, because it was meant to be bound.
    fn customer(&self, claims: &Members) -> Result<Option<Arc<str>>, TokenRejection> {
        let Some(claim) = &self.customer_claim else {
            return Ok(None);
        };
        let customer = claims.text(claim)?;
        match customer.is_none_or(|id| Text::NAME.holds(id)) {
            true => Ok(customer.map(Arc::from)),
            false => Err(TokenRejection::Malformed),
        }
    }
}

/// Returns the seconds after 1970 of a claim. A fraction is legal, and dropped.
fn time(claims: &Members, claim: &str) -> Result<Option<u64>, TokenRejection> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    let seconds = value.as_f64().ok_or(TokenRejection::Malformed)?;
    match seconds >= 0.0 {
        // A number beyond the range becomes the greatest one.
        true => Ok(Some(seconds as u64)),
        false => Err(TokenRejection::Malformed),
    }
}

/// Returns the name of the caller: the subject, or the client if the token has no subject.
fn name(claims: &Members) -> Result<Arc<str>, TokenRejection> {
    let name = match claims.text("sub")? {
        Some(subject) => Some(subject),
        None => claims.text("client_id")?,
    };
    let is_name = |name: &&str| {
        let length = 1..=MAX_NAME_BYTES;
        length.contains(&name.len()) && !name.chars().any(char::is_control)
    };
    name.filter(is_name)
        .map(Arc::from)
        .ok_or(TokenRejection::Malformed)
}

/// Returns the scopes of the token that the api knows. RFC 9068 has them in `scope`, separated by
/// spaces. Microsoft Entra has them in `scp`, and Okta has a list there.
fn scopes(claims: &Members) -> Result<Scopes, TokenRejection> {
    let known = |words: &str| -> Vec<Scope> {
        let words = words.split(' ');
        words.filter_map(|word| word.parse().ok()).collect()
    };
    let scopes = match (claims.text("scope")?, claims.get("scp")) {
        (Some(scope), _) => known(scope),
        (None, Some(Value::String(scope))) => known(scope),
        (None, Some(Value::Array(scopes))) => {
            let words = scopes.iter().filter_map(Value::as_str);
            words.filter_map(|word| word.parse().ok()).collect()
        }
        (None, _) => Vec::new(),
    };
    Ok(scopes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn expected() -> Expected {
        Expected {
            issuer: "https://issuer.example".to_owned(),
            audience: "orders".to_owned(),
            customer_claim: Some("customer".to_owned()),
        }
    }

    /// Checks a token whose claims are valid except for `changes`; null removes a claim.
    fn check(changes: Value) -> Result<Accepted, TokenRejection> {
        let mut claims = json!({
            "iss": "https://issuer.example",
            "aud": "orders",
            "sub": "alice",
            "exp": NOW + 300,
            "iat": NOW,
            "scope": "openid orders:read orders:pii",
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims
                    .as_object_mut()
                    .unwrap()
                    .insert(name.clone(), value.clone()),
            };
        }
        let claims = Members::parse(claims.to_string().as_bytes()).unwrap();
        expected().check(&claims, NOW)
    }

    #[track_caller]
    fn assert_rejected(changes: Value, reason: TokenRejection) {
        let rejected = check(changes.clone()).map(|accepted| accepted.caller);
        assert_eq!(rejected, Err(reason), "{changes}");
    }

    #[test]
    fn a_valid_token_describes_its_caller() {
        let accepted = check(json!({})).unwrap();
        assert_eq!(&*accepted.caller.name, "alice");
        let scopes: Scopes = [Scope::OrdersRead, Scope::OrdersPii].into_iter().collect();
        assert_eq!(accepted.caller.scopes, scopes);
        assert_eq!(accepted.caller.customer, None);
        assert_eq!(accepted.expires_at, NOW + 360);
    }

    #[test]
    fn the_issuer_must_be_the_same_text() {
        for issuer in [
            json!(null),
            json!("https://issuer.example/"),
            json!("http://issuer.example"),
            json!("https://ISSUER.example"),
        ] {
            assert_rejected(json!({"iss": issuer}), TokenRejection::Issuer);
        }
        assert_rejected(
            json!({"iss": ["https://issuer.example"]}),
            TokenRejection::Malformed,
        );
    }

    #[test]
    fn the_audience_is_one_text_or_a_list_with_ours() {
        assert!(check(json!({"aud": ["other", "orders"]})).is_ok());
        for audience in [json!(null), json!("order"), json!([]), json!(["other"])] {
            assert_rejected(json!({"aud": audience}), TokenRejection::Audience);
        }
        for audience in [json!(7), json!({"orders": true}), json!(["orders", 7])] {
            assert_rejected(json!({"aud": audience}), TokenRejection::Malformed);
        }
    }

    #[test]
    fn times_may_differ_by_the_skew() {
        for (changes, reason) in [
            (json!({"exp": NOW - 59}), None),
            (json!({"exp": NOW - 60}), Some(TokenRejection::Expired)),
            (json!({"exp": 0}), Some(TokenRejection::Expired)),
            (json!({"exp": NOW as f64 + 0.5}), None),
            (json!({"exp": 1e300}), None),
            (json!({"nbf": NOW + 60}), None),
            (json!({"nbf": NOW + 61}), Some(TokenRejection::NotYetValid)),
            (json!({"iat": NOW + 60}), None),
            (json!({"iat": NOW + 61}), Some(TokenRejection::NotYetValid)),
            (json!({"iat": null}), None),
        ] {
            match reason {
                None => assert!(check(changes.clone()).is_ok(), "{changes}"),
                Some(reason) => assert_rejected(changes, reason),
            }
        }
    }

    #[test]
    fn a_time_of_another_type_is_not_a_missing_one() {
        for claim in ["exp", "nbf", "iat"] {
            for value in [json!("1800000300"), json!(true), json!([NOW]), json!(-1)] {
                assert_rejected(json!({ claim: value }), TokenRejection::Malformed);
            }
        }
        assert_rejected(json!({"exp": null}), TokenRejection::Malformed);
    }

    #[test]
    fn the_name_is_the_subject_or_the_client() {
        let client = check(json!({"sub": null, "client_id": "billing"})).unwrap();
        assert_eq!(&*client.caller.name, "billing");
        for changes in [
            json!({"sub": null}),
            json!({"sub": ""}),
            json!({"sub": 7}),
            json!({"sub": "a\nb"}),
            json!({"sub": "a".repeat(256)}),
        ] {
            assert_rejected(changes, TokenRejection::Malformed);
        }
    }

    #[test]
    fn scopes_come_from_scope_or_else_from_scp() {
        let scopes = |changes| check(changes).unwrap().caller.scopes;
        let list: Scopes = [Scope::OrdersList].into_iter().collect();
        assert_eq!(scopes(json!({"scope": "orders:list"})), list);
        for scp in [
            json!("profile orders:list"),
            json!(["profile", "orders:list"]),
        ] {
            assert_eq!(scopes(json!({"scope": null, "scp": scp})), list);
        }
        for changes in [
            json!({"scope": null}),
            json!({"scope": ""}),
            json!({"scope": "orders:LIST orders"}),
            // `scope` wins.
            json!({"scope": "", "scp": "orders:list"}),
        ] {
            assert_eq!(scopes(changes), Scopes::default());
        }
        assert_rejected(json!({"scope": ["orders:list"]}), TokenRejection::Malformed);
    }

    #[test]
    fn a_token_is_bound_to_the_customer_of_the_claim() {
        let bound = check(json!({"customer": "c-7"})).unwrap();
        assert_eq!(bound.caller.customer.as_deref(), Some("c-7"));
        for customer in [
            json!(""),
            json!(" "),
            json!(7),
            json!(["c-7"]),
            json!("c".repeat(257)),
        ] {
            assert_rejected(json!({ "customer": customer }), TokenRejection::Malformed);
        }
        let claims = json!({
            "iss": "https://issuer.example", "aud": "orders", "sub": "a", "exp": NOW + 1,
            "customer": null,
        });
        let claims = Members::parse(claims.to_string().as_bytes()).unwrap();
        let rejected = expected()
            .check(&claims, NOW)
            .map(|accepted| accepted.caller);
        assert_eq!(rejected, Err(TokenRejection::Malformed));
        // Without the variable, the claim has no meaning.
        let unbound = Expected {
            customer_claim: None,
            ..expected()
        };
        assert!(unbound.check(&claims, NOW).is_ok());
    }
}
