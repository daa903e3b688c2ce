//! The variables that every kind of process reads: admin port, logs, traces.

use serde::Deserialize;

use super::value;

/// `ADMIN_*` (worker, api): the port for health checks and metrics.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub addr: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            addr: "0.0.0.0:8081".to_owned(),
        }
    }
}

/// `LOG_*` (worker, api, producer): the format of the logs.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Log {
    /// `json` (one object per line) or `pretty` (for people). The default is `pretty` on a terminal
    /// and `json` elsewhere.
    #[serde(deserialize_with = "value::log_format")]
    pub format: Option<LogFormat>,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Pretty,
}

/// `OTEL_*` (worker, api, producer): traces.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Otel {
    /// Endpoint that receives the spans, such as `http://localhost:4317`. Without it, traces are
    /// off.
    pub exporter_otlp_endpoint: Option<String>,
    /// Name of the service in its spans. The default is the name of the process.
    pub service_name: Option<String>,
}
