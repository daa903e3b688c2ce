//! A port up to HTTP/1.1: accepts connections, limits them, and drains them on shutdown. Knows no
//! routes: it passes each well-formed request to a [`Service`].
//!
//! | module | responsibility |
//! |---|---|
//! | `accept` | the listener: connection limits, failed accepts, drain |
//! | `addresses` | the connections of each client address |
//! | `connection` | one connection: HTTP/1.1, rest, graceful shutdown |
//! | `vetted` | passes whole and well-formed request heads only |
//! | `head` | the end and the form of a request head |
//! | `deadlines` | the deadlines of one connection: idle, slow request, blocked write |
//! | `waiting` | the connections that wait for their clients, and their memory |
//! | `exchange` | what the layers of one connection share |
//! | `limits` | every limit of a port |
//! | `metrics` | connections that are open, and those that were closed |

mod accept;
mod addresses;
mod connection;
mod deadlines;
mod exchange;
mod head;
mod limits;
mod metrics;
mod vetted;
mod waiting;

use std::{error::Error, net::SocketAddr};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
};

use super::request::MalformedRequest;

pub use accept::HttpServer;
pub use limits::{ADMIN_CONNECTIONS, HEAD_BYTES, Limits};
pub use metrics::ConnectionMetrics;

/// Marks a response, in its extensions, whose body ends when the client closes its side of the
/// connection. Any other response is sent to its end, because a client may close its side after
/// the request.
#[derive(Clone, Copy, Debug)]
pub struct EndsWithClient;

/// Answers the requests of all connections.
pub trait Service: Send + Sync + 'static {
    /// The body of a response.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers one request of the client at `client`. Dropping the future cancels the request.
    fn answer(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Returns the response to a malformed request, after which the connection closes.
    fn reject(&self, malformed: MalformedRequest) -> Response<Self::Body>;
}
