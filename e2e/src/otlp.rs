//! A receiver of traces: OTLP over gRPC, like a collector or Jaeger.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{self as proto, span::SpanKind, status::StatusCode},
};
use prost::Message;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{block_on, wait::until};

/// The only call of the protocol.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Length of the prefix of a message in a gRPC body: a compression flag and the length.
const PREFIX: usize = 5;

/// A received span.
#[derive(Clone, Debug)]
pub struct Span {
    /// Trace id in hexadecimal digits.
    pub trace: String,
    /// Span id in hexadecimal digits.
    pub id: String,
    /// Span id of the parent, empty for a root.
    pub parent: String,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: SpanKind,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Resource attributes of the process.
    pub resource: BTreeMap<String, String>,
    /// Whether the status is an error.
    pub failed: bool,
    /// Start and end, in nanoseconds since 1970.
    pub times: (u64, u64),
}

impl Span {
    /// Returns the name of the service that created the span.
    pub fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }

    /// Returns an attribute, or an empty text if the span has no attribute of that name.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Span {
    /// Returns every text in the span.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let values = self.attributes.iter().chain(&self.resource);
        values
            .flat_map(|(name, value)| [name.as_str(), value.as_str()])
            .chain([self.name.as_str()])
    }
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// Receives spans until it is dropped.
pub struct OtlpReceiver {
    port: u16,
    spans: Spans,
    _runtime: Runtime,
}

impl OtlpReceiver {
    /// Starts a receiver on a port that the system chooses.
    #[track_caller]
    pub fn start() -> Self {
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).and_then(TcpListener::into_std);
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let spans = Spans::default();
        runtime.spawn({
            let spans = Arc::clone(&spans);
            async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((connection, _)) = listener.accept().await {
                    let spans = Arc::clone(&spans);
                    tokio::spawn(async move {
                        let Ok(mut requests) = h2::server::handshake(connection).await else {
                            return;
                        };
                        while let Some(Ok((request, respond))) = requests.accept().await {
                            tokio::spawn(log_errors(take_in(request, respond, Arc::clone(&spans))));
                        }
                    });
                }
            }
        });
        Self {
            port,
            spans,
            _runtime: runtime,
        }
    }

    /// Returns the URL for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns all spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.spans).clone()
    }

    /// Waits until `look` accepts the spans.
    #[track_caller]
    pub fn until<T, E: Display>(&self, what: &str, look: impl Fn(&[Span]) -> Result<T, E>) -> T {
        until(what, || look(&self.spans()))
    }
}

/// Prints the error of a failed call, as a hint for a test that waits for its spans. A process that
/// ends cuts off its call, which is not a failure.
async fn log_errors(work: impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>>) {
    if let Err(error) = work.await {
        eprintln!("OTLP: {error}");
    }
}

async fn take_in(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    spans: Spans,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    if request.uri().path() != EXPORT {
        return Err(format!("an unknown call: {}", request.uri().path()).into());
    }
    let mut stream = request.into_body();
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    let message = body.get(PREFIX..).ok_or("a call without a message")?;
    let export = ExportTraceServiceRequest::decode(message)?;
    lock(&spans).extend(received(export));

    let answer = Response::builder()
        .header("content-type", "application/grpc")
        .body(())?;
    let mut answer = respond.send_response(answer, false)?;
    // An empty message: all spans were accepted.
    answer.send_data(Bytes::from_static(&[0; PREFIX]), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(answer.send_trailers(trailers)?)
}

fn received(export: ExportTraceServiceRequest) -> impl Iterator<Item = Span> {
    export.resource_spans.into_iter().flat_map(|of_resource| {
        let resource = attributes(of_resource.resource.unwrap_or_default().attributes);
        of_resource
            .scope_spans
            .into_iter()
            .flat_map(|of_scope| of_scope.spans)
            .map(move |span| one(span, resource.clone()))
    })
}

fn one(span: proto::Span, resource: BTreeMap<String, String>) -> Span {
    Span {
        trace: hexadecimal(&span.trace_id),
        id: hexadecimal(&span.span_id),
        parent: hexadecimal(&span.parent_span_id),
        kind: span.kind(),
        attributes: attributes(span.attributes),
        resource,
        failed: span
            .status
            .is_some_and(|status| status.code() == StatusCode::Error),
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        name: span.name,
    }
}

fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|attribute| (attribute.key, text(attribute.value)))
        .collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock(spans: &Spans) -> MutexGuard<'_, Vec<Span>> {
    spans.lock().unwrap_or_else(PoisonError::into_inner)
}
