//! The variables of the api. The worker reads one of the caches, too.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::value::{byte_size, duration, flag, number, optional_flag, positive_duration};

/// `API_*` (api): the public port.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Api {
    /// Address to listen on.
    pub addr: String,
    /// Path of the key file, which is reread when it changes.
    pub keys_file: Option<PathBuf>,
    /// Whether the api may serve callers without credentials on an address that is not loopback. It
    /// has no effect with keys or OpenID Connect.
    #[serde(deserialize_with = "flag")]
    pub allow_anonymous: bool,
    /// Whether to log each request for orders. The default is `true` with keys or OpenID Connect,
    /// else `false`.
    #[serde(deserialize_with = "optional_flag")]
    pub access_log: Option<bool>,
    /// URL of the OpenID Connect issuer whose tokens callers may send, exactly as in `iss`. Without
    /// it, the api accepts no tokens.
    pub oidc_issuer: Option<String>,
    /// The audience of tokens for this api: `aud` has this value, or a list with it. Needed with
    /// `API_OIDC_ISSUER`.
    pub oidc_audience: Option<String>,
    /// Name of the claim that binds a token to a customer. Without it, no token is bound.
    pub oidc_customer_claim: Option<String>,
    /// PEM file with the certificates to trust for the issuer. Without it, the api trusts those of
    /// the system.
    pub oidc_ca_file: Option<PathBuf>,
    /// Requests per second for each client; 0 for no limit.
    #[serde(deserialize_with = "number")]
    pub rate_limit: u32,
    /// Maximum number of open connections from one address, in IPv6 from one /64 network. Further
    /// ones are closed at once. 0 for no limit, which a proxy in front of the api needs: it
    /// connects for all clients.
    #[serde(deserialize_with = "number")]
    pub max_connections_per_address: u32,
    /// Deadline of a request, after which it gets 503.
    #[serde(deserialize_with = "positive_duration")]
    pub request_timeout: Duration,
    /// Origins whose scripts may read responses, separated by commas; `*` for all.
    pub cors_origins: Vec<String>,
    /// `Cache-Control` of orders and lists.
    pub cache_control: String,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            addr: "0.0.0.0:8080".to_owned(),
            keys_file: None,
            allow_anonymous: false,
            access_log: None,
            oidc_issuer: None,
            oidc_audience: None,
            oidc_customer_claim: None,
            oidc_ca_file: None,
            rate_limit: 0,
            max_connections_per_address: 256,
            request_timeout: Duration::from_secs(2),
            cors_origins: Vec::new(),
            cache_control: "private, no-store".to_owned(),
        }
    }
}

/// `CACHE_*` (worker, api): all caches.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Whether the api uses caches (api only). If not, it reads only Postgres.
    #[serde(deserialize_with = "flag")]
    pub enabled: bool,
    /// Number of newest orders to load before the api is ready (api only); 0 for none.
    #[serde(deserialize_with = "number")]
    pub warmup: u32,
    /// Key of the MAC of entries in Redis: 64 hex digits. While it is replaced, two keys separated
    /// by a comma; the first one signs. Without it, forged entries are not recognised.
    pub mac_key: Option<String>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: true,
            warmup: 1000,
            mac_key: None,
        }
    }
}

/// `LOCAL_CACHE_*` (api): the cache inside the process.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct LocalCache {
    /// Maximum bytes of all entries; 0 disables the cache.
    #[serde(deserialize_with = "byte_size")]
    pub max_bytes: usize,
    /// Lifetime of an entry, counted from the start of its load.
    #[serde(deserialize_with = "duration")]
    pub ttl: Duration,
}

impl Default for LocalCache {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            ttl: Duration::from_secs(5),
        }
    }
}

/// `NEGATIVE_CACHE_*` (api): negative entries, for orders that do not exist.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct NegativeCache {
    /// Lifetime of a negative entry.
    #[serde(deserialize_with = "duration")]
    pub ttl: Duration,
}

impl Default for NegativeCache {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(1),
        }
    }
}
