//! Callers: who they are, what they may do, and how much of it they do.
//!
//! | module | responsibility |
//! |---|---|
//! | `mod` | scopes, callers, the check of credentials |
//! | `keys` | the key file: its format, the keys in it |
//! | `key_file` | rereads the file when it changes |
//! | `usage` | the metrics of each key |
//! | `oidc` | tokens of an OpenID Connect issuer |
//! | `distinct` | estimates how many different orders a caller requests |

mod distinct;
mod key_file;
mod keys;
mod oidc;
mod usage;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use shared::config::{self, ConfigError};
use strum::{EnumIter, EnumString, IntoStaticStr, VariantNames};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::metrics::{AccessFamilies, OidcMetrics};
use key_file::KeyFile;

pub use oidc::Oidc;
pub use usage::{KeyUsage, Usage};

/// Time between two looks at the key file and at the expiry of the keys.
const LOOK: Duration = Duration::from_secs(1);
/// Number of looks between two updates of the gauges.
const GAUGES: u64 = 5;
/// Number of looks after which the older half of the window of requested orders is forgotten.
const HALF_WINDOW: u64 = 300;

/// A permission of a caller. The text of each scope is its name in the key file.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    EnumIter,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
pub enum Scope {
    /// Read and watch an order by its uid.
    #[default]
    #[strum(serialize = "orders:read")]
    OrdersRead,
    /// List, export and watch all orders.
    #[strum(serialize = "orders:list")]
    OrdersList,
    /// See personal data.
    #[strum(serialize = "orders:pii")]
    OrdersPii,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Returns whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    fn bit(scope: Scope) -> u8 {
        1 << scope as u8
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(
            scopes
                .into_iter()
                .fold(0, |bits, scope| bits | Self::bit(scope)),
        )
    }
}

/// An authenticated caller; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the key.
    pub name: Arc<str>,
    /// What the caller may do.
    pub scopes: Scopes,
    /// The customer whose orders the caller may see; all orders if `None`.
    pub customer: Option<Arc<str>>,
}

/// Valid credentials, and what the service keeps about them.
pub struct Identity {
    /// Who sent them.
    pub caller: Caller,
    /// When they expire; never if `None`.
    pub expires: Option<SystemTime>,
    /// The metrics of the caller.
    pub usage: Arc<KeyUsage>,
    /// Cancelled when the credentials are revoked.
    revoked: CancellationToken,
}

impl Identity {
    /// Credentials of `caller` that are valid until `expires`, or until they are revoked.
    pub fn new(caller: Caller, expires: Option<SystemTime>, usage: Arc<KeyUsage>) -> Self {
        Self {
            caller,
            expires,
            usage,
            revoked: CancellationToken::new(),
        }
    }

    fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Ends all streams of these credentials.
    fn revoke(&self) {
        self.revoked.cancel();
    }

    /// Returns a future that waits until the credentials are revoked or expire. A stream ends then.
    pub fn end(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        // A token of its own: a shared one is a lock that all streams take at each wake-up.
        let revoked = self.revoked.child_token();
        let left = self.expires.map(|expires| {
            expires
                .duration_since(SystemTime::now())
                .unwrap_or_default()
        });
        async move {
            match left {
                // A timer without a duration is not ready at once.
                Some(Duration::ZERO) => {}
                Some(left) => {
                    // Both outcomes are the end.
                    let _ = revoked.run_until_cancelled(sleep(left)).await;
                }
                None => revoked.cancelled().await,
            }
        }
    }
}

/// Reason why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The request has no token.
    Missing,
    /// The token is unknown.
    Unauthorized,
    /// The token was valid and has expired.
    Expired,
    /// The token may be valid, but the keys of the issuer are not known.
    Unavailable,
    /// The token is valid but lacks this scope.
    Forbidden(Scope),
}

/// A rejected request.
pub struct Denied {
    /// Why it is rejected.
    pub reason: Denial,
    /// Who sent it, if that is known.
    pub identity: Option<Arc<Identity>>,
}

impl From<Denial> for Denied {
    fn from(reason: Denial) -> Self {
        Self {
            reason,
            identity: None,
        }
    }
}

/// Result of a check of credentials.
pub type Checked = Result<Arc<Identity>, Denied>;

/// Progress of a check of credentials.
pub enum Check<'a> {
    /// The usual case: everything that the check needs is in memory.
    Done(Checked),
    /// The check waits for another service.
    Pending(BoxFuture<'a, Checked>),
}

/// Identifies callers.
pub struct Auth {
    keys: Option<KeyFile>,
    oidc: Option<Arc<Oidc>>,
    usage: Arc<Usage>,
}

impl Auth {
    /// Reads the credentials that `config` names.
    ///
    /// # Errors
    /// Returns an error that names the variable with an unusable value.
    pub fn new(
        config: &config::Api,
        families: &AccessFamilies,
        oidc: &OidcMetrics,
    ) -> Result<Self, ConfigError> {
        let usage = Arc::new(Usage::new(families.clone()));
        let keys = config.keys_file.as_deref();
        let keys = keys.map(|path: &Path| KeyFile::open(path, usage.clone()));
        let keys = keys.transpose()?;
        let oidc = Oidc::new(config, usage.clone(), oidc.clone())?.map(Arc::new);
        if keys.is_some() || oidc.is_some() {
            // Its series start at zero.
            usage.unknown();
        }
        Ok(Self { keys, oidc, usage })
    }

    /// Returns whether callers need credentials.
    pub fn is_on(&self) -> bool {
        self.keys.is_some() || self.oidc.is_some()
    }

    /// The issuer of tokens; `None` if only keys are accepted.
    pub fn oidc(&self) -> Option<Arc<Oidc>> {
        self.oidc.clone()
    }

    /// Checks that the api may serve callers without credentials, if it does: on a loopback
    /// address, or because the operator allows it.
    ///
    /// # Errors
    /// Returns an error that names the ways out.
    pub fn allow_anonymous(
        &self,
        config: &config::Api,
        is_loopback: bool,
    ) -> Result<(), ConfigError> {
        if self.is_on() {
            return Ok(());
        }
        if !config.allow_anonymous && !is_loopback {
            return Err(ConfigError::malformed(
                "API_ALLOW_ANONYMOUS",
                format!(
                    "callers need no credentials, and API_ADDR={} is not a loopback address, so \
                     that every client in the network could read every order; set API_KEYS_FILE or \
                     API_OIDC_ISSUER, or write API_ADDR=127.0.0.1:8080 or API_ALLOW_ANONYMOUS=true",
                    config.addr
                ),
            ));
        }
        tracing::warn!(
            address = config.addr,
            variable = "API_KEYS_FILE",
            "no credentials configured; serving every caller"
        );
        Ok(())
    }

    /// Checks `authorization`, the value of the header.
    pub fn check(&self, authorization: Option<&[u8]>) -> Check<'_> {
        let Some(token) = authorization.and_then(bearer_token) else {
            return Check::Done(Err(Denial::Missing.into()));
        };
        let known = self.keys.as_ref().and_then(|keys| keys.find(token));
        match (known, &self.oidc) {
            (Some(checked), _) => Check::Done(checked),
            (None, Some(oidc)) => oidc.check(token, SystemTime::now()),
            (None, None) => Check::Done(Err(Denial::Unauthorized.into())),
        }
    }

    /// The metrics of requests whose caller is not known.
    pub fn unknown(&self) -> &KeyUsage {
        self.usage.unknown()
    }

    /// Rereads the key file when it changes, at most 3 s later, and at once when `hangup` changes.
    /// Ends the streams of expired keys, and updates the gauges. Never returns.
    pub async fn watch(&self, mut hangup: watch::Receiver<()>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0_u64;
        loop {
            let at_once = tokio::select! {
                _ = looks.tick() => false,
                Ok(()) = hangup.changed() => true,
            };
            if let Some(keys) = &self.keys {
                keys.look(at_once).await;
                keys.expire(SystemTime::now());
            }
            if at_once {
                continue;
            }
            number += 1;
            if number.is_multiple_of(GAUGES) {
                self.usage.publish();
            }
            if number.is_multiple_of(HALF_WINDOW) {
                self.usage.forget_older_half();
            }
        }
    }
}

/// The token of `Bearer TOKEN`. The scheme name is case-insensitive (RFC 9110).
fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked(7)?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn a_set_has_the_scopes_that_it_was_built_from() {
        let scopes: Scopes = [Scope::OrdersRead, Scope::OrdersPii].into_iter().collect();
        assert!(scopes.contains(Scope::OrdersRead) && scopes.contains(Scope::OrdersPii));
        assert!(!scopes.contains(Scope::OrdersList));
        assert!(!Scopes::default().contains(Scope::OrdersRead));
    }

    #[test]
    fn only_the_bearer_scheme_has_a_token() {
        for header in ["Bearer secret", "bearer secret", "BEARER  secret "] {
            assert_eq!(
                bearer_token(header.as_bytes()),
                Some(&b"secret"[..]),
                "{header}"
            );
        }
        for header in ["", "Bearer", "Bearer ", "Basic secret", "secret"] {
            assert_eq!(bearer_token(header.as_bytes()), None, "{header}");
        }
    }

    #[test]
    fn without_credentials_only_loopback_is_served_unless_allowed() {
        let registry = Registry::new();
        let families = AccessFamilies::register(&registry).unwrap();
        let tokens = OidcMetrics::register(&registry).unwrap();
        let mut config = config::Api::default();
        let auth = Auth::new(&config, &families, &tokens).unwrap();
        assert!(!auth.is_on());
        let error = auth
            .allow_anonymous(&config, false)
            .unwrap_err()
            .to_string();
        for way in [
            "API_KEYS_FILE",
            "API_OIDC_ISSUER",
            "API_ADDR=127.0.0.1:8080",
            "API_ALLOW_ANONYMOUS=true",
        ] {
            assert!(error.contains(way), "{error}");
        }
        assert!(auth.allow_anonymous(&config, true).is_ok());
        config.allow_anonymous = true;
        assert!(auth.allow_anonymous(&config, false).is_ok());
    }

    fn identity(expires: Option<SystemTime>) -> Identity {
        let caller = Caller {
            name: "support".into(),
            scopes: Scopes::default(),
            customer: None,
        };
        let families = AccessFamilies::register(&Registry::new()).unwrap();
        Identity::new(caller, expires, Usage::new(families).of_key("support"))
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_when_their_credentials_expire_or_are_revoked() {
        identity(Some(SystemTime::now() + Duration::from_secs(60)))
            .end()
            .await;
        identity(Some(SystemTime::UNIX_EPOCH)).end().await;

        let lasting = identity(None);
        let end = tokio::spawn(lasting.end());
        tokio::task::yield_now().await;
        assert!(!end.is_finished());
        lasting.revoke();
        end.await.unwrap();
    }
}
