//! HTTP: what a request says, and how an answer is written. Asks [`lookup`](crate::lookup) for everything else.
//!
//! | module | responsibility |
//! |---|---|
//! | `front` | the layer in front of all routes: request id, keys, rate, time limit, metrics |
//! | `route` | which path leads where |
//! | `orders` | the two order routes |
//! | `params`, `cursor`, `dto` | what goes in, what comes out |
//! | `problem` | errors |
//! | `schema`, `document` | the OpenAPI document |
//! | `pages` | the web page and the documentation |
//! | `cors`, `request_id` | their headers |
//! | `listener` | connections |

mod cors;
mod cursor;
mod document;
mod dto;
mod front;
mod listener;
mod orders;
mod pages;
mod params;
mod problem;
mod request_id;
mod route;
mod schema;

use std::time::Duration;

use anyhow::Context;
use poem::Server;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use front::Front;
use listener::Connections;

/// How long requests in flight may take once the process is to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The OpenAPI document as JSON, or as YAML.
pub fn openapi(yaml: bool) -> String {
    if yaml {
        document::yaml()
    } else {
        document::json()
    }
}

/// The public port, open but not answering yet.
pub struct HttpServer {
    listener: TcpListener,
    port: u16,
}

impl HttpServer {
    /// Listens on `addr`, which may ask for port 0.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(addr: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr)
            .await
            .with_context(|| format!("API_ADDR: cannot listen on {addr}"))?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// The port that is really open.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers until `shutdown`; then accepts nothing more and finishes what is under way, within ten seconds.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, front: Front, shutdown: CancellationToken) -> anyhow::Result<()> {
        let server = Server::new_with_acceptor(Connections::new(self.listener)?);
        Ok(server
            .run_with_graceful_shutdown(front, shutdown.cancelled(), Some(DRAIN))
            .await?)
    }
}
