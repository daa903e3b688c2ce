//! Liveness ("it makes progress"), readiness ("send me work") and the state of what a process depends on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use opentelemetry::metrics::Gauge;
use serde::Serialize;

use crate::telemetry::metrics::meter;

/// What a probe answers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the answer is 200 (or 503).
    pub ok: bool,
    /// What was looked at, and its state in a word or two.
    pub checks: Vec<Check>,
}

/// One thing that a probe looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name, such as `postgres`.
    pub name: &'static str,
    /// Its state, such as `up`.
    pub state: String,
}

impl Report {
    /// A report without checks.
    pub fn new(ok: bool) -> Self {
        Self {
            ok,
            checks: Vec::new(),
        }
    }

    /// Adds the state of one thing.
    #[must_use]
    pub fn with(mut self, name: &'static str, state: impl Into<String>) -> Self {
        self.checks.push(Check {
            name,
            state: state.into(),
        });
        self
    }
}

/// Answers a probe at the moment it is asked; must not block.
pub type Probe = Arc<dyn Fn() -> Report + Send + Sync>;

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;
const READ_ONLY: u8 = 3;
const OTHER_SERVER: u8 = 4;

/// Why a service that answers is of limited or no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impairment {
    /// It answers reads and rejects writes.
    ReadOnly,
    /// It is not the server that the other processes use.
    OtherServer,
}

/// Whether a service that this process depends on answers: the `*_up` gauge, and a log line when it changes.
#[derive(Clone)]
pub struct Dependency {
    name: &'static str,
    state: Arc<AtomicU8>,
    gauge: Gauge<u64>,
}

impl Dependency {
    /// A dependency of which nothing is known yet; `metric` is the name of its gauge, 0 until it answers.
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

    /// Records that it answers, or that it does not and why (never with personal data).
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

    /// Records that it answers and cannot be used as it should be, and why (never with personal data). Its gauge is 0.
    pub fn set_impaired(&self, impairment: Impairment, why: &str) {
        let now = match impairment {
            Impairment::ReadOnly => READ_ONLY,
            Impairment::OtherServer => OTHER_SERVER,
        };
        if self.state.swap(now, Ordering::Relaxed) == now {
            return;
        }
        self.gauge.record(0, &[]);
        let (service, state) = (self.name, self.state());
        tracing::warn!(service, state, error = why, "{service} cannot be used");
    }

    /// Whether it answered when it was last asked, and accepted what this process needs.
    pub fn is_up(&self) -> bool {
        self.state.load(Ordering::Relaxed) == UP
    }

    /// Whether it answered reads when it was last asked.
    pub fn answers(&self) -> bool {
        matches!(self.state.load(Ordering::Relaxed), UP | READ_ONLY)
    }

    /// `up`, `read-only`, `another server`, `down` or `unknown`.
    pub fn state(&self) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            UP => "up",
            DOWN => "down",
            READ_ONLY => "read-only",
            OTHER_SERVER => "another server",
            _ => "unknown",
        }
    }
}

/// Asks `/readyz` (or with `live` `/livez`) of the admin port at `addr`, for container health checks.
///
/// # Errors
/// When nothing answers within three seconds, or the answer is not 200; the error has the answer's body.
pub fn ask(addr: &str, live: bool) -> anyhow::Result<String> {
    let path = if live { "livez" } else { "readyz" };
    // A wildcard address is one to listen on, not one to connect to.
    let addr = addr
        .replacen("0.0.0.0", "127.0.0.1", 1)
        .replacen("[::]", "[::1]", 1);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(3)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut response = agent.get(format!("http://{addr}/{path}")).call()?;
    let body = response.body_mut().read_to_string()?;
    anyhow::ensure!(
        response.status().is_success(),
        "{path} answers {}: {body}",
        response.status().as_u16()
    );
    Ok(body)
}
