//! The state of the services that a process depends on, as a gauge and in the log.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use opentelemetry::metrics::Gauge;

use super::metrics::meter;

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;
const READ_ONLY: u8 = 3;
const OTHER_SERVER: u8 = 4;
const REJECTING: u8 = 5;

/// Why a service that answers cannot be used fully.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impairment {
    /// The service answers reads and rejects writes.
    ReadOnly,
    /// The service is not the server that the other processes use.
    OtherServer,
    /// The service answers and rejects our calls: a table or a right is missing, or the password is
    /// wrong.
    Rejecting,
}

/// The state of a service that this process depends on. Sets the `*_up` gauge and logs each change.
#[derive(Clone)]
pub struct Dependency {
    name: &'static str,
    state: Arc<AtomicU8>,
    gauge: Gauge<u64>,
}

impl Dependency {
    /// Creates a dependency in an unknown state. `metric` is the name of its gauge, which is 0
    /// until the service answers.
    pub fn new(name: &'static str, metric: &'static str) -> Self {
        let gauge = meter()
            .u64_gauge(metric)
            .with_description("1 while the service answers and accepts writes, else 0")
            .build();
        gauge.record(0, &[]);
        Self {
            name,
            state: Arc::new(AtomicU8::new(UNKNOWN)),
            gauge,
        }
    }

    /// Records that the service answers, or the error. The error must not contain personal data.
    pub fn set(&self, result: Result<(), &dyn std::fmt::Display>) {
        let now = if result.is_ok() { UP } else { DOWN };
        let before = self.state.swap(now, Ordering::Relaxed);
        if before == now {
            return;
        }
        self.gauge.record(u64::from(now == UP), &[]);
        match result {
            Ok(()) if before != UNKNOWN => {
                tracing::info!(service = self.name, "{} is back", self.name)
            }
            Ok(()) => tracing::debug!(service = self.name, "{} answers", self.name),
            Err(error) => {
                tracing::warn!(service = self.name, %error, "{} does not answer", self.name)
            }
        }
    }

    /// Records that the service answers but is impaired, and why. Sets the gauge to 0. `why` must
    /// not contain personal data.
    pub fn set_impaired(&self, impairment: Impairment, why: &str) {
        let now = match impairment {
            Impairment::ReadOnly => READ_ONLY,
            Impairment::OtherServer => OTHER_SERVER,
            Impairment::Rejecting => REJECTING,
        };
        if self.state.swap(now, Ordering::Relaxed) == now {
            return;
        }
        self.gauge.record(0, &[]);
        let (service, state) = (self.name, self.state());
        tracing::warn!(service, state, error = why, "{service} cannot be used");
    }

    /// Whether the last call was answered and the service accepted what this process needs.
    pub fn is_up(&self) -> bool {
        self.state.load(Ordering::Relaxed) == UP
    }

    /// Whether the service answered reads at the last call.
    pub fn answers(&self) -> bool {
        matches!(self.state.load(Ordering::Relaxed), UP | READ_ONLY)
    }

    /// Returns `up`, `read-only`, `another server`, `rejecting`, `down` or `unknown`.
    pub fn state(&self) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            UP => "up",
            DOWN => "down",
            READ_ONLY => "read-only",
            OTHER_SERVER => "another server",
            REJECTING => "rejecting",
            _ => "unknown",
        }
    }
}
