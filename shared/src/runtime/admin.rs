//! The admin port: `/livez`, `/readyz`, `/metrics`.

use anyhow::Context;
use poem::{
    Endpoint, EndpointExt, IntoResponse, Response, Route, Server, get, handler,
    http::{StatusCode, header},
    listener::{Acceptor, Listener, TcpListener},
    web::{Data, Json},
};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::health::{Probe, Report};
use crate::telemetry::metrics;

/// What the admin port answers from.
#[derive(Clone)]
pub struct Admin {
    /// Whether the process makes progress.
    pub live: Probe,
    /// Whether the process wants work.
    pub ready: Probe,
    /// The metrics.
    pub registry: Registry,
}

impl Admin {
    /// Listens on `addr` and answers until `shutdown`; returns the port that is really open (`addr` may ask for port 0).
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(self, addr: &str, shutdown: CancellationToken) -> anyhow::Result<u16> {
        let acceptor = TcpListener::bind(addr.to_owned())
            .into_acceptor()
            .await
            .with_context(|| format!("ADMIN_ADDR: cannot listen on {addr}"))?;
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
                tracing::error!(%error, "the admin port stopped answering");
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
    }
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
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
