//! The configuration of the api: its own variables, and those that it shares with the worker.

use shared::config::{self, ConfigError};

pub use shared::config::{Api, Cache, LocalCache, NegativeCache};

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
