//! Logs, metrics and traces, set up once per process.

mod export;
mod logs;
pub mod metrics;
pub mod traces;

pub use prometheus::Registry;

use crate::config::{self, ConfigError};

/// What a process keeps for as long as it wants to be observed.
pub struct Telemetry {
    registry: Registry,
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    /// The registry behind `/metrics`.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Sends the spans that are still buffered, waiting at most two seconds.
    pub fn flush(&self) {
        let Some(provider) = &self.traces else { return };
        if let Err(error) = provider.shutdown_with_timeout(std::time::Duration::from_secs(2)) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Sets up logs (`LOG_FORMAT`, `RUST_LOG`), metrics, and traces where `OTEL_EXPORTER_OTLP_ENDPOINT` is set. Call it inside
/// the tokio runtime, once per process.
///
/// # Errors
/// Names the variable that cannot be read.
pub fn init(process: &'static str, version: &'static str) -> Result<Telemetry, ConfigError> {
    logs::init(config::load::<config::Log>("LOG_")?.format)?;
    let registry = metrics::init(version)
        .map_err(|error| ConfigError::malformed("metrics", error.to_string()))?;
    let traces = traces::init(process, version, &config::load::<config::Otel>("OTEL_")?)?;
    Ok(Telemetry { registry, traces })
}
