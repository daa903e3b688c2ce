//! The public port up to HTTP/1.1: accepts connections, limits them, and drains them on shutdown.
//! Knows no routes: it passes each request to a [`Service`].
//!
//! | module | responsibility |
//! |---|---|
//! | `accept` | the listener: connection limit, failed accepts, drain |
//! | `connection` | one connection: HTTP/1.1, graceful shutdown |
//! | `deadlines` | the deadlines of one connection: idle, slow request head, blocked write |
//! | `exchange` | the progress of the requests of one connection |
//! | `limits` | every limit of the port |

mod accept;
mod connection;
mod deadlines;
mod exchange;
mod limits;

use std::{error::Error, net::SocketAddr};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
};

pub use accept::HttpServer;
pub use limits::STREAMS;

/// Marks a response, in its extensions, whose body ends when the client closes its side of the
/// connection. Any other response is sent to its end, because a client may close its side after
/// the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndsWithClient;

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
}
