//! The admin port: `/livez`, `/readyz`, `/metrics`.

use std::{future::ready, net::SocketAddr, sync::Arc};

use anyhow::anyhow;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::{
    health::Report,
    request::MalformedRequest,
    transport::{ConnectionMetrics, HttpServer, Limits, Service},
};
use crate::telemetry::metrics;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static(prometheus::TEXT_FORMAT);

/// A browser must not guess another type than `Content-Type`.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A function that returns the current report.
type Probe = Arc<dyn Fn() -> Report + Send + Sync>;

/// The admin port of a process.
#[derive(Clone)]
pub struct Admin {
    /// Reports whether the process makes progress.
    live: Probe,
    /// Reports whether the process is ready for work.
    ready: Probe,
    /// Registry behind `/metrics`.
    registry: Registry,
}

impl Admin {
    /// Creates the admin port of a process whose state is `health`. `live` and `ready` must not
    /// block.
    pub fn new<H: Send + Sync + 'static>(
        health: &Arc<H>,
        live: fn(&H) -> Report,
        ready: fn(&H) -> Report,
        registry: Registry,
    ) -> Self {
        let probe = |report: fn(&H) -> Report| -> Probe {
            let health = Arc::clone(health);
            Arc::new(move || report(&health))
        };
        Self {
            live: probe(live),
            ready: probe(ready),
            registry,
        }
    }

    /// Listens on `addr` and answers requests until `shutdown`. Returns the port that is open
    /// (`addr` may have port 0).
    ///
    /// # Errors
    /// If the process cannot listen on the address, or the registry has the metrics of an admin
    /// port.
    pub async fn serve(self, addr: &str, shutdown: CancellationToken) -> anyhow::Result<u16> {
        let metrics = ConnectionMetrics::register(&self.registry, "admin")?;
        let server = HttpServer::bind(addr, Limits::ADMIN, metrics)
            .await
            .map_err(|error| {
                anyhow!("ADMIN_ADDR: cannot listen on {addr}: {error}; write a free 0.0.0.0:PORT")
            })?;
        let port = server.port();
        tokio::spawn(server.serve(self, shutdown));
        Ok(port)
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let answer: fn(&Self) -> Response<Full<Bytes>> = match request.uri().path() {
            "/livez" => |admin| report(&(admin.live)()),
            "/readyz" => |admin| report(&(admin.ready)()),
            "/metrics" => Self::render_metrics,
            // Only OPTIONS may have this target, which addresses the whole server.
            "*" => |_| empty(StatusCode::NO_CONTENT),
            _ => {
                let detail = "not found; this port has /livez, /readyz and /metrics";
                return response(StatusCode::NOT_FOUND, TEXT, detail);
            }
        };
        let mut response = match *request.method() {
            Method::GET | Method::HEAD => return answer(self),
            Method::OPTIONS => empty(StatusCode::NO_CONTENT),
            _ => empty(StatusCode::METHOD_NOT_ALLOWED),
        };
        response.headers_mut().insert(header::ALLOW, METHODS);
        response
    }

    fn render_metrics(&self) -> Response<Full<Bytes>> {
        match metrics::render(&self.registry) {
            Ok(text) => response(StatusCode::OK, METRICS, text),
            Err(error) => {
                tracing::error!(%error, "rendering metrics failed");
                empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl Service for Admin {
    type Body = Full<Bytes>;

    fn answer(
        &self,
        request: Request<Incoming>,
        _: SocketAddr,
    ) -> impl Future<Output = Response<Self::Body>> + Send {
        ready(self.respond(&request))
    }

    fn reject(&self, malformed: MalformedRequest) -> Response<Self::Body> {
        response(malformed.status(), TEXT, malformed.detail())
    }
}

fn report(report: &Report) -> Response<Full<Bytes>> {
    let status = if report.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    // Names and states: serialization cannot fail.
    response(status, JSON, serde_json::to_vec(report).unwrap_or_default())
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

fn response(
    status: StatusCode,
    media_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}
