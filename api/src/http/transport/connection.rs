//! One connection of the public port.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc};

use futures_util::FutureExt;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{EndsWithClient, Service, deadlines::Guarded, exchange::Exchange, limits};

/// Serves the requests of `client` on `stream` until the client closes the connection or `shutdown`
/// fires. On shutdown it finishes the request in flight first.
pub(super) async fn serve<S: Service>(
    stream: TcpStream,
    client: SocketAddr,
    service: Arc<S>,
    shutdown: CancellationToken,
) {
    let exchange = Arc::new(Exchange::default());
    let guarded = Guarded::new(stream, exchange.clone());
    let (service, exchange) = (&*service, &*exchange);
    let service = service_fn(move |request: Request<Incoming>| {
        exchange.begin();
        service.answer(request, client).map(move |response| {
            if response.extensions().get::<EndsWithClient>().is_some() {
                exchange.end_with_client();
            }
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(limits::HEAD_BYTES)
            // A client may close its write side after the request. Detecting a client that is gone
            // would take another read, into a new buffer, for each request. A request without a
            // client ends at its deadline anyway, and `Guarded` detects the end of a stream.
            .half_close(true)
            .serve_connection(TokioIo::new(guarded), service)
    );
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection closed with an error");
    }
}
