//! The api's own environment variables, in addition to those that it shares with the worker.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use shared::config::{self, ConfigError, byte_size, duration, flag, number};

/// The whole configuration of the api.
#[derive(Clone, Default)]
pub struct Config {
    /// `API_*`.
    pub api: Api,
    /// `CACHE_*`.
    pub cache: Cache,
    /// `LOCAL_CACHE_*`.
    pub local_cache: LocalCache,
    /// `NEGATIVE_CACHE_*`.
    pub negative_cache: NegativeCache,
    /// `DATABASE_*`.
    pub database: config::Database,
    /// `REDIS_*`.
    pub redis: config::Redis,
    /// `ADMIN_*`.
    pub admin: config::Admin,
}

impl Config {
    /// Reads the environment of the process.
    ///
    /// # Errors
    /// Returns an error that names the first variable with an unusable value.
    pub fn from_env() -> Result<Self, ConfigError> {
        Ok(Self {
            api: config::load("API_")?,
            cache: config::load("CACHE_")?,
            local_cache: config::load("LOCAL_CACHE_")?,
            negative_cache: config::load("NEGATIVE_CACHE_")?,
            database: config::load("DATABASE_")?,
            redis: config::load("REDIS_")?,
            admin: config::load("ADMIN_")?,
        })
    }
}

/// `API_*` (api): the public port.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Api {
    /// Address to listen on.
    pub addr: String,
    /// Path of the key file. Without it, every caller may read.
    pub keys_file: Option<PathBuf>,
    /// Requests per second for each client; 0 for no limit.
    #[serde(deserialize_with = "number")]
    pub rate_limit: u32,
    /// Deadline of a request, after which it gets 503.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Duration,
    /// Origins whose scripts may read responses, separated by commas; `*` for all.
    pub cors_origins: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            addr: "0.0.0.0:8080".to_owned(),
            keys_file: None,
            rate_limit: 0,
            request_timeout: Duration::from_secs(2),
            cors_origins: Vec::new(),
        }
    }
}

/// `CACHE_*` (api): all caches.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Whether the api uses caches. If not, it reads only Postgres.
    #[serde(deserialize_with = "flag")]
    pub enabled: bool,
    /// Number of newest orders to load before the api is ready; 0 for none.
    #[serde(deserialize_with = "number")]
    pub warmup: u32,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: true,
            warmup: 1000,
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

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn read<T: DeserializeOwned>(
        prefix: &str,
        variables: &[(&str, &str)],
    ) -> Result<T, ConfigError> {
        config::load_from(
            prefix,
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn reads_every_variable() {
        let api: Api = read(
            "API_",
            &[
                ("API_ADDR", "127.0.0.1:0"),
                ("API_KEYS_FILE", "/etc/keys"),
                ("API_RATE_LIMIT", "100"),
                ("API_REQUEST_TIMEOUT", "750ms"),
                ("API_CORS_ORIGINS", "https://a.example,https://b.example"),
            ],
        )
        .unwrap();
        assert_eq!(api.addr, "127.0.0.1:0");
        assert_eq!(api.keys_file, Some(PathBuf::from("/etc/keys")));
        assert_eq!(
            (api.rate_limit, api.request_timeout),
            (100, Duration::from_millis(750))
        );
        assert_eq!(api.cors_origins, ["https://a.example", "https://b.example"]);

        let cache: Cache = read(
            "CACHE_",
            &[("CACHE_ENABLED", "false"), ("CACHE_WARMUP", "0")],
        )
        .unwrap();
        assert_eq!((cache.enabled, cache.warmup), (false, 0));
        let local: LocalCache = read(
            "LOCAL_CACHE_",
            &[("LOCAL_CACHE_MAX_BYTES", "1MiB"), ("LOCAL_CACHE_TTL", "2s")],
        )
        .unwrap();
        assert_eq!(
            (local.max_bytes, local.ttl),
            (1 << 20, Duration::from_secs(2))
        );
        let negative: NegativeCache =
            read("NEGATIVE_CACHE_", &[("NEGATIVE_CACHE_TTL", "300ms")]).unwrap();
        assert_eq!(negative.ttl, Duration::from_millis(300));
    }

    #[test]
    fn an_error_has_the_variable_the_value_and_what_to_write() {
        let size = read::<LocalCache>("LOCAL_CACHE_", &[("LOCAL_CACHE_MAX_BYTES", "lots")]);
        assert_eq!(
            size.err().unwrap().to_string(),
            r#"LOCAL_CACHE_MAX_BYTES: "lots" is not a size; write 8MiB or a number of bytes"#
        );
        let rate = read::<Api>("API_", &[("API_RATE_LIMIT", "-1")]);
        assert_eq!(
            rate.err().unwrap().to_string(),
            r#"API_RATE_LIMIT: "-1" is not a whole number from 0 to 4294967295; write digits only"#
        );
    }
}
