//! Traces: reads W3C trace context, sends OTLP.
//!
//! Spans are created by hand where they are useful. A tracing layer on every call costs a quarter
//! of a lookup's CPU, even when nothing is sampled.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::{
    Context, KeyValue, global,
    global::BoxedTracer,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};

use super::export;
use crate::config::{ConfigError, Otel};

/// HTTP and Kafka header that carries the trace context.
pub const TRACEPARENT: &str = "traceparent";

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Sets up the export of spans. Returns `None` if no endpoint is set.
///
/// The SDK itself reads the other OpenTelemetry variables: `OTEL_BSP_*`,
/// `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER` and so on. By
/// default a root span is always sampled, and a child follows its parent.
pub(super) fn init(
    process: &'static str,
    version: &'static str,
    config: &Otel,
) -> Result<Option<SdkTracerProvider>, ConfigError> {
    let Some(endpoint) = config
        .exporter_otlp_endpoint
        .as_deref()
        .filter(|endpoint| !endpoint.is_empty())
    else {
        return Ok(None);
    };
    let not_a_url = || {
        // The value is not quoted, because a URL may hold a password.
        ConfigError::malformed(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "not an http:// URL; write http://localhost:4317 (use a collector to add TLS)",
        )
    };
    // The exporter reads an address without a scheme as https and fails with an unclear message.
    if !endpoint.starts_with("http://") {
        return Err(not_a_url());
    }
    let processor = export::processor(endpoint).map_err(|_| not_a_url())?;
    let service = config
        .service_name
        .clone()
        .unwrap_or_else(|| process.to_owned());
    let provider = SdkTracerProvider::builder()
        .with_resource(
            Resource::builder()
                .with_attributes([
                    KeyValue::new("service.name", service),
                    KeyValue::new("service.version", version),
                ])
                .build(),
        )
        .with_span_processor(processor)
        .build();
    global::set_tracer_provider(provider.clone());
    ENABLED.store(true, Ordering::Relaxed);
    Ok(Some(provider))
}

/// Whether spans are exported. If not, create no spans.
pub fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Returns the tracer of all our spans.
pub fn tracer() -> BoxedTracer {
    global::tracer("order-service")
}

/// Returns the context that a `traceparent` value names, if it is well formed and its trace is
/// sampled.
pub fn sampled_parent(traceparent: &str) -> Option<Context> {
    struct One<'a>(&'a str);
    impl Extractor for One<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == TRACEPARENT).then_some(self.0)
        }
        fn keys(&self) -> Vec<&str> {
            vec![TRACEPARENT]
        }
    }
    let context = TraceContextPropagator::new().extract(&One(traceparent));
    let span = context.span();
    let sampled = span.span_context().is_valid() && span.span_context().is_sampled();
    sampled.then_some(context)
}

/// Returns the `traceparent` value of the span of `context`, if it has one.
pub fn traceparent(context: &Context) -> Option<String> {
    struct One(Option<String>);
    impl Injector for One {
        fn set(&mut self, key: &str, value: String) {
            if key == TRACEPARENT {
                self.0 = Some(value);
            }
        }
    }
    let mut one = One(None);
    TraceContextPropagator::new().inject_context(context, &mut one);
    one.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampled_traceparent_round_trips() {
        let value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = sampled_parent(value).unwrap();
        assert_eq!(traceparent(&context).as_deref(), Some(value));
    }

    #[test]
    fn an_unusable_endpoint_is_an_error_that_names_its_variable() {
        for endpoint in [
            "https://localhost:4317",
            "localhost:4317",
            "http://not a url",
        ] {
            let config = Otel {
                exporter_otlp_endpoint: Some(endpoint.to_owned()),
                ..Otel::default()
            };
            let error = init("test", "0", &config).err().unwrap().to_string();
            assert_eq!(
                error,
                "OTEL_EXPORTER_OTLP_ENDPOINT: not an http:// URL; write http://localhost:4317 (use \
                 a collector to add TLS)"
            );
        }
    }

    #[test]
    fn an_unsampled_or_malformed_traceparent_starts_no_trace() {
        for value in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "rubbish",
            "",
        ] {
            assert!(sampled_parent(value).is_none(), "{value}");
        }
    }
}
