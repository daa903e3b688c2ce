//! One connection.

use std::{
    convert::Infallible,
    future::{poll_fn, ready},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt, future::Either};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{
    super::request,
    EndsWithClient, Service,
    deadlines::Guarded,
    exchange::Exchange,
    limits::HEAD_BYTES,
    metrics::{Closed, ConnectionMetrics},
    vetted::Vetted,
    waiting::Waiting,
};

/// Memory that a response of unknown length takes while its client does not read.
const STREAM_BYTES: usize = 64 * 1024;

/// What all connections of a port share.
pub(super) struct Port<S> {
    pub(super) service: S,
    /// Connections whose requests have not arrived, or not completely.
    pub(super) unfinished: Arc<Waiting>,
    /// Connections whose clients do not read their responses.
    pub(super) unread: Arc<Waiting>,
    pub(super) rest: Duration,
    pub(super) metrics: Arc<ConnectionMetrics>,
}

/// Serves the requests of `client` on `stream` until the client closes the connection or `shutdown`
/// fires. On shutdown it finishes the request in flight first.
///
/// Without a request, a connection has neither hyper nor its buffers: an idle client takes 1 KiB
/// instead of 20.
pub(super) async fn serve<S, T>(
    stream: T,
    client: SocketAddr,
    port: Arc<Port<S>>,
    shutdown: CancellationToken,
) where
    S: Service,
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    let exchange = Arc::new(Exchange::default());
    let unread = Arc::clone(&port.unread);
    let metrics = Arc::clone(&port.metrics);
    let guarded = Guarded::new(stream, exchange.clone(), unread, port.rest, metrics);
    let mut stream = Vetted::new(guarded, exchange.clone(), Arc::clone(&port.unfinished));
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = stream.wait() => arrived,
            () = shutdown.cancelled() => match stream.is_between_requests() {
                true => return,
                false => stream.wait().await,
            },
        };
        match arrived {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(%error, "connection closed without a request");
                return;
            }
        }
        match serve_requests(stream, client, &port, &exchange, &shutdown).await {
            Some(resting) => stream = resting,
            None => return,
        }
    }
}

/// Serves requests until the connection rests, then returns its stream. Returns `None` if it has
/// ended.
async fn serve_requests<S: Service, T: AsyncRead + AsyncWrite + Unpin>(
    stream: Vetted<T>,
    client: SocketAddr,
    port: &Port<S>,
    exchange: &Exchange,
    shutdown: &CancellationToken,
) -> Option<Vetted<T>> {
    let service = service_fn(|request| answer(port, exchange, client, request));
    let mut connection = Box::new(
        http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            // A client may close its write side after the request. Detecting a client that is gone
            // would take another read, into a new buffer, for each request. A request without a
            // client ends at its deadline anyway, and `Guarded` detects the end of a stream.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service),
    );
    let until_rest = poll_fn(|context| match Pin::new(&mut *connection).poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if exchange.is_resting() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let ended = tokio::select! {
        biased;
        ended = until_rest => ended,
        () = shutdown.cancelled() => {
            Pin::new(&mut *connection).graceful_shutdown();
            Some(Pin::new(&mut *connection).await)
        }
    };
    match ended {
        None => return Some(connection.into_parts().io.into_inner()),
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "connection closed with an error"),
    }
    None
}

/// Answers one request. Rejects it, and closes the connection, if it is malformed.
fn answer<'a, S: Service>(
    port: &'a Port<S>,
    exchange: &'a Exchange,
    client: SocketAddr,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<S::Body>, Infallible>> + 'a {
    exchange.begin();
    let malformed = exchange.malformed().or_else(|| {
        let (method, target) = (request.method(), request.uri());
        request::check(method, target, request.version(), request.headers()).err()
    });
    let answer = match malformed {
        None => Either::Left(port.service.answer(request, client)),
        Some(malformed) => {
            exchange.end();
            port.metrics.closed(Closed::Malformed);
            Either::Right(ready(port.service.reject(malformed)))
        }
    };
    answer.map(move |mut response| {
        if response.extensions().get::<EndsWithClient>().is_some() {
            exchange.end_with_client();
        }
        let bytes = response.body().size_hint().exact();
        exchange.respond(bytes.map_or(STREAM_BYTES, |bytes| bytes as usize));
        if exchange.is_last() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(response)
    })
}
