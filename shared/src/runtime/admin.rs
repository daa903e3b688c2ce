//! The admin port: `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use anyhow::anyhow;
use poem::{
    Endpoint, EndpointExt, IntoResponse, Request, Response, Route, Server, get, handler,
    http::{HeaderValue, Method, StatusCode, header},
    listener::{Acceptor, Listener, TcpListener},
    web::{Data, Json},
};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::{health::Report, request};
use crate::telemetry::metrics;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

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
    /// If the process cannot listen on the address.
    pub async fn serve(self, addr: &str, shutdown: CancellationToken) -> anyhow::Result<u16> {
        let acceptor = TcpListener::bind(addr.to_owned())
            .into_acceptor()
            .await
            .map_err(|error| {
                anyhow!("ADMIN_ADDR: cannot listen on {addr}: {error}; write a free 0.0.0.0:PORT")
            })?;
        let port = acceptor
            .local_addr()
            .first()
            .and_then(|local| local.as_socket_addr().map(|socket| socket.port()))
            .unwrap_or_default();
        let server = Server::new_with_acceptor(acceptor);
        tokio::spawn(async move {
            let stopped = server
                .run_with_graceful_shutdown(self.routes(), shutdown.cancelled(), None)
                .await;
            if let Err(error) = stopped {
                tracing::error!(%error, "admin port stopped");
            }
        });
        Ok(port)
    }

    fn routes(self) -> impl Endpoint {
        Route::new()
            .at("/livez", get(livez))
            .at("/readyz", get(readyz))
            .at("/metrics", get(render_metrics))
            .data(self)
            .around(guard)
    }
}

/// Rejects malformed requests, answers `OPTIONS`, and adds `Allow` if the method is not allowed.
async fn guard(endpoint: Arc<impl Endpoint>, request: Request) -> poem::Result<Response> {
    let checked = request::check(
        request.method(),
        request.uri(),
        request.version(),
        request.headers(),
    );
    if let Err(malformed) = checked {
        return Err(poem::Error::from_string(
            malformed.detail(),
            StatusCode::BAD_REQUEST,
        ));
    }
    let of_server = request.uri().path() == "*";
    let is_options = request.method() == Method::OPTIONS;
    let mut response = endpoint.get_response(request).await;
    if of_server || response.status() == StatusCode::METHOD_NOT_ALLOWED {
        if is_options {
            response = StatusCode::NO_CONTENT.into_response();
        }
        response.headers_mut().insert(header::ALLOW, METHODS);
    }
    Ok(response)
}

#[handler]
fn livez(Data(admin): Data<&Admin>) -> Response {
    answer((admin.live)())
}

#[handler]
fn readyz(Data(admin): Data<&Admin>) -> Response {
    answer((admin.ready)())
}

fn answer(report: Report) -> Response {
    let status = if report.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Json(report).with_status(status).into_response()
}

#[handler]
fn render_metrics(Data(admin): Data<&Admin>) -> Response {
    match metrics::render(&admin.registry) {
        Ok(text) => Response::builder()
            .header(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)
            .body(text),
        Err(error) => {
            tracing::error!(%error, "rendering metrics failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
