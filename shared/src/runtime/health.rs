//! Liveness (the process makes progress) and readiness (the process accepts work).

use std::time::Duration;

use serde::Serialize;

/// The result of a probe.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the probe answers 200 (otherwise 503).
    pub ok: bool,
    /// The checks and their states.
    pub checks: Vec<Check>,
}

/// One check of a probe.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Name of the check, such as `postgres`.
    pub name: &'static str,
    /// State in a word or two, such as `up`.
    pub state: String,
}

impl Report {
    /// Creates a report without checks.
    pub fn new(ok: bool) -> Self {
        Self {
            ok,
            checks: Vec::new(),
        }
    }

    /// Adds a check and its state.
    #[must_use]
    pub fn with(mut self, name: &'static str, state: impl Into<String>) -> Self {
        self.checks.push(Check {
            name,
            state: state.into(),
        });
        self
    }
}

/// Requests `/readyz` (or `/livez` if `live`) from the admin port at `addr`. Used by container
/// health checks.
///
/// # Errors
/// If nothing answers within three seconds, or if the status is not 200. The error then contains
/// the response body.
pub fn request(addr: &str, live: bool) -> anyhow::Result<String> {
    let path = if live { "livez" } else { "readyz" };
    // A process can listen on a wildcard address, but a client cannot connect to it.
    let addr = addr
        .replacen("0.0.0.0", "127.0.0.1", 1)
        .replacen("[::]", "[::1]", 1);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(3)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut response = agent
        .get(format!("http://{addr}/{path}"))
        .call()
        .map_err(|error| {
            anyhow::anyhow!("no answer from {addr}: {error}; start the process, or set ADMIN_ADDR")
        })?;
    let body = response.body_mut().read_to_string()?;
    anyhow::ensure!(
        response.status().is_success(),
        "{path} answers {}: {body}",
        response.status().as_u16()
    );
    Ok(body)
}
