//! The configuration of `worker run`: the worker's own variables, and those that it shares.

use std::time::Duration;

use serde::Deserialize;
use shared::{
    config::{self, ConfigError, duration, flag, positive_byte_size, positive_number},
    order::UnknownFields,
};

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
            admin: config::load("ADMIN_")?,
        };
        kafka::check(&config.kafka)?;
        Ok(config)
    }
}

/// `WORKER_*` (worker): batching, strict fields, shutdown.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Worker {
    /// Maximum records in one batch.
    #[serde(deserialize_with = "positive_number")]
    pub batch_size: usize,
    /// Size in bytes of keys, values and headers at which a batch is full. The last record may
    /// exceed it.
    #[serde(deserialize_with = "positive_byte_size")]
    pub batch_max_bytes: usize,
    /// How long a batch waits for more records while another one is being written. An idle worker
    /// never waits.
    #[serde(deserialize_with = "duration")]
    pub batch_linger: Duration,
    /// Whether to reject orders with unknown fields.
    #[serde(deserialize_with = "flag")]
    pub strict_fields: bool,
    /// Time limit for a shutdown.
    #[serde(deserialize_with = "duration")]
    pub shutdown_timeout: Duration,
}

impl Worker {
    /// Returns how to treat unknown fields.
    pub fn unknown_fields(&self) -> UnknownFields {
        match self.strict_fields {
            true => UnknownFields::Reject,
            false => UnknownFields::Ignore,
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            batch_size: 500,
            batch_max_bytes: 8 << 20,
            batch_linger: Duration::from_millis(5),
            strict_fields: false,
            shutdown_timeout: Duration::from_secs(25),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::{config::load_from, testing::example_variables};

    use super::*;

    #[test]
    fn the_example_shows_the_defaults() {
        let example: Worker = load_from("WORKER_", example_variables()).unwrap();
        assert_eq!(example, Worker::default());
    }
}
