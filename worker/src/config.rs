//! The configuration of `worker run`: the worker's own variables, and those that it shares.

use shared::config::{self, ConfigError};

pub use shared::config::Worker;

use crate::kafka;

/// The whole configuration of `worker run`.
#[derive(Clone)]
pub struct Config {
    /// `WORKER_*`.
    pub worker: Worker,
    /// `KAFKA_*`.
    pub kafka: config::Kafka,
    /// `DATABASE_*`.
    pub database: config::Database,
    /// `REDIS_*`.
    pub redis: config::Redis,
    /// `CACHE_*`.
    pub cache: config::Cache,
    /// `ADMIN_*`.
    pub admin: config::Admin,
}

impl Config {
    /// Reads the environment of the process.
    ///
    /// # Errors
    /// Names the first variable with an unusable value.
    pub fn from_env() -> Result<Self, ConfigError> {
        let config = Self {
            worker: config::load("WORKER_")?,
            kafka: config::load("KAFKA_")?,
            database: config::load("DATABASE_")?,
            redis: config::load("REDIS_")?,
            cache: config::load("CACHE_")?,
            admin: config::load("ADMIN_")?,
        };
        kafka::check(&config.kafka)?;
        Ok(config)
    }
}
