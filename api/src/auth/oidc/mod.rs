//! Tokens of an OpenID Connect issuer: signed JWTs, verified with the keys that the issuer
//! publishes.
//!
//! ```text
//! check ─▶ verified tokens ─miss─▶ token ─▶ claims ─▶ jwks
//! refresh ─▶ issuer ─▶ https
//! ```
//!
//! A request never causes more than one refresh in 10 s, so tokens with invented key names neither
//! load the issuer nor slow down other callers.

mod claims;
mod https;
mod issuer;
mod json;
mod jwks;
mod refresh;
mod token;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use shared::{
    config::{self, ConfigError},
    telemetry::{Dependency, OutageLog},
};

use super::{Check, Checked, Denial, Denied, Identity, Usage};
use crate::metrics::{OidcMetrics, TokenRejection};
use claims::Expected;
use issuer::Issuer;
use jwks::{Key, verify};
use refresh::{Demand, Refreshes};
use token::{MAX_BYTES, Token};

/// Maximum number of verified tokens that are kept, of some 500 bytes each.
const VERIFIED_TOKENS: usize = 4096;

/// Verifies the tokens of one issuer.
pub struct Oidc {
    issuer: Issuer,
    expected: Expected,
    /// `None` until the first refresh, and if no refresh succeeds for a day.
    keys: ArcSwapOption<KeySet>,
    refreshes: Refreshes,
    up: Dependency,
    outage: OutageLog,
    usage: Arc<Usage>,
    metrics: OidcMetrics,
}

/// The keys of the issuer, and the tokens that they have verified. Both are replaced together, so
/// that no token outlives its key.
struct KeySet {
    keys: Vec<Key>,
    /// By the SHA-256 of the whole token.
    verified: Cache<[u8; 32], Arc<Identity>>,
}

impl KeySet {
    fn new(keys: Vec<Key>) -> Self {
        Self {
            keys,
            verified: Cache::new(VERIFIED_TOKENS),
        }
    }
}

impl Oidc {
    /// Returns the issuer that `config` names, if any. The keys are fetched by [`Oidc::run`].
    ///
    /// # Errors
    /// Returns an error that names the variable with an unusable value.
    pub fn new(
        config: &config::Api,
        usage: Arc<Usage>,
        metrics: OidcMetrics,
    ) -> Result<Option<Self>, ConfigError> {
        let blank = |text: &&str| text.trim().is_empty();
        let audience = config.oidc_audience.as_deref();
        let claim = config.oidc_customer_claim.as_deref();
        let Some(issuer) = config.oidc_issuer.as_deref() else {
            let others = [
                ("API_OIDC_AUDIENCE", audience.is_some()),
                ("API_OIDC_CUSTOMER_CLAIM", claim.is_some()),
                ("API_OIDC_CA_FILE", config.oidc_ca_file.is_some()),
            ];
            return match others.into_iter().find(|(_, is_set)| *is_set) {
                Some((variable, _)) => Err(ConfigError::malformed(
                    variable,
                    "has no effect without API_OIDC_ISSUER; set both, or unset it",
                )),
                None => Ok(None),
            };
        };
        let issuer = Issuer::new(issuer, config.oidc_ca_file.clone())?;
        // Without an audience, a token for any other service of the issuer would be accepted.
        let Some(audience) = audience.filter(|audience| !blank(audience)) else {
            return Err(ConfigError::malformed(
                "API_OIDC_AUDIENCE",
                "not set; write the value that the issuer puts into `aud` of tokens for this api",
            ));
        };
        if claim.as_ref().is_some_and(blank) {
            return Err(ConfigError::malformed(
                "API_OIDC_CUSTOMER_CLAIM",
                "is empty; write the name of a claim, or unset it",
            ));
        }
        Ok(Some(Self {
            expected: Expected {
                issuer: issuer.name().to_owned(),
                audience: audience.to_owned(),
                customer_claim: claim.map(str::to_owned),
            },
            issuer,
            keys: ArcSwapOption::empty(),
            refreshes: Refreshes::default(),
            up: Dependency::new("oidc issuer", "oidc_up"),
            outage: OutageLog::default(),
            usage,
            metrics,
        }))
    }

    /// Checks the token of a request.
    pub(super) fn check(&self, token: &[u8], now: SystemTime) -> Check<'_> {
        let rejection = match self.identify(token, now) {
            Ok(identity) => return Check::Done(Ok(identity)),
            Err(rejection) => rejection,
        };
        if rejection != TokenRejection::UnknownKey {
            return Check::Done(Err(self.denied(rejection)));
        }
        // The issuer may have a new key.
        match self.refreshes.demand() {
            Demand::TooEarly => Check::Done(Err(self.denied(rejection))),
            Demand::Crowded => Check::Done(Err(Denial::Unavailable.into())),
            Demand::Wait(refreshed) => {
                let token = token.to_vec();
                Check::Pending(Box::pin(async move {
                    refreshed.await;
                    self.checked(&token)
                }))
            }
        }
    }

    fn checked(&self, token: &[u8]) -> Checked {
        let identified = self.identify(token, SystemTime::now());
        identified.map_err(|rejection| self.denied(rejection))
    }

    fn identify(&self, token: &[u8], now: SystemTime) -> Result<Arc<Identity>, TokenRejection> {
        if token.len() > MAX_BYTES {
            return Err(TokenRejection::Malformed);
        }
        let keys = self.keys.load();
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(identity) = keys.as_ref().and_then(|keys| keys.verified.get(&digest)) {
            return match identity.is_expired(now) {
                false => Ok(identity),
                true => Err(TokenRejection::Expired),
            };
        }
        let token = Token::parse(token)?;
        // Before the key: a token of another issuer causes no refresh.
        let accepted = self.expected.check(&token.claims, seconds(now))?;
        let keys = keys.as_ref().ok_or(TokenRejection::UnknownKey)?;
        verify(&keys.keys, &token)?;
        let caller = accepted.caller;
        let usage = self.usage.of_subject(&caller.name);
        // Beyond the range of the clock, a token does not expire.
        let expires = Duration::from_secs(accepted.expires_at);
        let expires = SystemTime::UNIX_EPOCH.checked_add(expires);
        let identity = Arc::new(Identity::new(caller, expires, usage));
        keys.verified.insert(digest, identity.clone());
        Ok(identity)
    }

    /// Counts a rejected token.
    fn denied(&self, rejection: TokenRejection) -> Denied {
        self.metrics.rejected(rejection);
        let reason: &str = rejection.into();
        tracing::debug!(reason, "token rejected");
        let denial = match rejection {
            TokenRejection::Expired => Denial::Expired,
            // The key may exist, and the token may be valid.
            TokenRejection::UnknownKey if self.refreshes.is_failing() => Denial::Unavailable,
            _ => Denial::Unauthorized,
        };
        denial.into()
    }
}

/// Seconds after 1970.
fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
