//! Metrics: OpenTelemetry instruments behind a Prometheus registry.
//!
//! Each instrument has its full Prometheus name, including unit and `_total`. A name on a dashboard
//! can therefore be found in the code.

use opentelemetry::{KeyValue, global, metrics::Meter};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};

/// Histogram bounds for latencies, in seconds: 100 µs to 10 s.
pub const LATENCY_SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Returns the meter of all our instruments.
pub fn meter() -> Meter {
    global::meter("order-service")
}

pub(super) fn init(version: &'static str) -> Result<Registry, Box<dyn std::error::Error>> {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .without_units()
        .without_counter_suffixes()
        .without_target_info()
        .scope_info_enabled(false)
        .build()?;
    global::set_meter_provider(SdkMeterProvider::builder().with_reader(exporter).build());
    registry.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    meter()
        .u64_gauge("build_info")
        .with_description("Always 1; the label is the version that runs")
        .build()
        .record(1, &[KeyValue::new("version", version)]);
    Ok(registry)
}

/// Renders all metrics of the registry in the Prometheus text format.
///
/// # Errors
/// If a collector returns a value that the format cannot hold.
pub fn render(registry: &Registry) -> prometheus::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(64 * 1024);
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}
