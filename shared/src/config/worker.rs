//! The variables of the worker.

use std::time::Duration;

use serde::Deserialize;

use super::value::{batch_max_byte_size, batch_size, duration, flag, shutdown_timeout};
use crate::order::UnknownFields;

/// `WORKER_*` (worker): batching, strict fields, shutdown.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Worker {
    /// Maximum records in one batch.
    #[serde(deserialize_with = "batch_size")]
    pub batch_size: usize,
    /// Size in bytes of keys, values and headers at which a batch is full. The last record may
    /// exceed it.
    #[serde(deserialize_with = "batch_max_byte_size")]
    pub batch_max_bytes: usize,
    /// How long a batch waits for more records while another one is being written. An idle worker
    /// never waits.
    #[serde(deserialize_with = "duration")]
    pub batch_linger: Duration,
    /// Whether to reject orders with unknown fields.
    #[serde(deserialize_with = "flag")]
    pub strict_fields: bool,
    /// Time limit for a shutdown.
    #[serde(deserialize_with = "shutdown_timeout")]
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
