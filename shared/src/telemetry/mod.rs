//! Logs, metrics and traces, set up once per process; the state of dependencies, and which failures
//! of an outage are logged.

mod dependency;
mod export;
mod logs;
pub mod metrics;
mod outage;
pub mod traces;

pub use prometheus::Registry;

use crate::config::{self, ConfigError};
pub use dependency::{Dependency, Impairment};
pub use outage::OutageLog;

/// The telemetry of a process. Keep it until the process ends.
pub struct Telemetry {
    registry: Registry,
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    /// Returns the registry behind `/metrics`.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Sends the buffered spans. Waits at most two seconds.
    pub fn flush(&self) {
        let Some(provider) = &self.traces else { return };
        if let Err(error) = provider.shutdown_with_timeout(std::time::Duration::from_secs(2)) {
            tracing::warn!(%error, "sending the last spans failed");
        }
    }
}

/// Formats a list as one log field, in ascending order, such as `0,1,5`.
pub fn listed<T: Copy + Ord + ToString>(values: &[T]) -> String {
    let mut values = values.to_vec();
    values.sort_unstable();
    let values: Vec<String> = values.iter().map(T::to_string).collect();
    values.join(",")
}

/// Sets up logs (`LOG_FORMAT`, `RUST_LOG`), metrics, and traces if `OTEL_EXPORTER_OTLP_ENDPOINT` is
/// set. Call it inside the tokio runtime, once per process.
///
/// # Errors
/// If a variable is invalid. The error names the variable.
pub fn init(process: &'static str, version: &'static str) -> Result<Telemetry, ConfigError> {
    logs::init(config::load::<config::Log>("LOG_")?.format)?;
    let registry = metrics::init(version)
        .map_err(|error| ConfigError::malformed("metrics", error.to_string()))?;
    let traces = traces::init(process, version, &config::load::<config::Otel>("OTEL_")?)?;
    Ok(Telemetry { registry, traces })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_lists_are_logged_in_one_form() {
        assert_eq!(listed(&[5, 0, 12]), "0,5,12");
        assert_eq!(listed::<i32>(&[]), "");
    }
}
