//! Export of spans: counts lost spans, logs each outage once, and replaces a silent connection.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, KeyValue, metrics::Counter};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{Dependency, metrics::meter};

/// Default queue size in spans. It is the SDK's own default; `OTEL_BSP_MAX_QUEUE_SIZE` overrides
/// it.
const QUEUE: usize = 2048;

/// Reasons why a span was lost.
const QUEUE_FULL: &str = "queue_full";
const EXPORT_FAILED: &str = "export_failed";

/// Creates a processor that sends spans in batches to `endpoint`, by OTLP over gRPC. Call it inside
/// the tokio runtime.
///
/// # Errors
/// If `endpoint` is not a URL.
pub(super) fn processor(
    endpoint: &str,
) -> Result<impl SpanProcessor + 'static, ExporterBuildError> {
    let capacity = env::var("OTEL_BSP_MAX_QUEUE_SIZE")
        .ok()
        .and_then(|size| size.parse().ok())
        .unwrap_or(QUEUE);
    let queue = Arc::new(Queue::new(capacity));
    let exporter = Exporter::new(endpoint, Arc::clone(&queue))?;
    let config = BatchConfigBuilder::default().with_max_queue_size(capacity);
    let batches = BatchSpanProcessor::builder(exporter)
        .with_batch_config(config.build())
        .build();
    Ok(Bounded { batches, queue })
}

/// The bound of the queue, and the counter of lost spans. The SDK has the same bound but does not
/// report dropped spans.
#[derive(Debug)]
struct Queue {
    capacity: usize,
    waiting: AtomicUsize,
    dropped: Counter<u64>,
}

impl Queue {
    fn new(capacity: usize) -> Self {
        let dropped = meter()
            .u64_counter("trace_spans_dropped_total")
            .with_description("Spans that did not reach the trace collector, by reason")
            .build();
        let queue = Self {
            capacity,
            waiting: AtomicUsize::new(0),
            dropped,
        };
        queue.count_lost(0, QUEUE_FULL);
        queue.count_lost(0, EXPORT_FAILED);
        queue
    }

    fn count_lost(&self, spans: usize, reason: &'static str) {
        let reason = [KeyValue::new("reason", reason)];
        self.dropped.add(spans as u64, &reason);
    }

    /// Reserves room for one span. Returns false and counts the span as lost if the queue is full.
    fn admits(&self) -> bool {
        let admitted = self.waiting.fetch_add(1, Ordering::Relaxed) < self.capacity;
        if !admitted {
            self.remove(1);
            self.count_lost(1, QUEUE_FULL);
        }
        admitted
    }

    fn remove(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    queue: Arc<Queue>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queue.admits() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

struct Exporter {
    endpoint: String,
    runtime: Handle,
    resource: Option<Resource>,
    /// Replaced after a failure. Otherwise the exporter would keep a connection whose packets are
    /// acknowledged but never answered.
    otlp: Mutex<Arc<Otlp>>,
    queue: Arc<Queue>,
    collector: Dependency,
}

impl Exporter {
    fn new(endpoint: &str, queue: Arc<Queue>) -> Result<Self, ExporterBuildError> {
        let otlp = connect(endpoint)?;
        Ok(Self {
            endpoint: endpoint.to_owned(),
            runtime: Handle::current(),
            resource: None,
            otlp: Mutex::new(Arc::new(otlp)),
            queue,
            collector: Dependency::new("trace collector", "trace_export_up"),
        })
    }

    fn otlp(&self) -> Arc<Otlp> {
        Arc::clone(&self.otlp.lock())
    }

    fn reconnect(&self) {
        // The SDK exports on its own thread, and the connection needs the tokio runtime.
        let _runtime = self.runtime.enter();
        if let Ok(mut otlp) = connect(&self.endpoint) {
            if let Some(resource) = &self.resource {
                otlp.set_resource(resource);
            }
            *self.otlp.lock() = Arc::new(otlp);
        }
    }
}

/// Creates an exporter that connects at its first use.
fn connect(endpoint: &str) -> Result<Otlp, ExporterBuildError> {
    Otlp::builder().with_tonic().with_endpoint(endpoint).build()
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Exporter")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queue.remove(spans);
        let result = self.otlp().export(batch).await;
        if result.is_err() {
            self.queue.count_lost(spans, EXPORT_FAILED);
            self.reconnect();
        }
        let answered = result.as_ref().map(drop);
        self.collector.set(answered.map_err(|error| error as _));
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = Some(resource.clone());
        if let Some(otlp) = Arc::get_mut(self.otlp.get_mut()) {
            otlp.set_resource(resource);
        }
    }
}
