//! Accept loop of the public port, with a connection limit and graceful drain.
//!
//! A loop of our own, because the stock server puts each socket behind a lock and checks two more
//! tokens at every wake-up. That costs a tenth of what an answer from Redis costs. This port also
//! needs its own limits, deadlines and shutdown order.

use std::{io, net::SocketAddr, sync::Arc};

use shared::runtime::backoff::Backoff;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Service, connection, limits};

/// The public port, bound but not accepting yet.
pub struct HttpServer {
    listener: TcpListener,
    port: u16,
    /// Maximum number of open connections.
    connections: usize,
}

impl HttpServer {
    /// Binds `addr`. Port 0 selects a free port.
    ///
    /// # Errors
    /// Returns an error if the process cannot listen on the address.
    pub async fn bind(addr: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let port = listener.local_addr()?.port();
        Ok(Self {
            listener,
            port,
            connections: limits::CONNECTIONS,
        })
    }

    /// The port in use; not 0, even if the address has port 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Accepts connections until `shutdown`. Then closes the listener and drains requests in
    /// flight, for at most 10 seconds. Logs a failed accept and retries it with backoff.
    pub async fn serve<S: Service>(self, service: S, shutdown: CancellationToken) {
        let service = Arc::new(service);
        let places = Arc::new(Semaphore::new(self.connections));
        let mut connections = JoinSet::new();
        let mut backoff = Backoff::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, client, place)) => {
                    backoff = Backoff::default();
                    // Each connection gets a child token. A shared token would be one lock that
                    // every connection takes at each wake-up.
                    let (service, shutdown) = (service.clone(), shutdown.child_token());
                    connections.spawn(async move {
                        connection::serve(stream, client, service, shutdown).await;
                        drop(place);
                    });
                }
                // The client closed the connection while it waited in the queue.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Without a free file descriptor, an immediate retry would be a busy loop.
                    tracing::warn!(%error, "accepting a connection failed");
                    shutdown.run_until_cancelled(backoff.wait()).await;
                }
            }
        }
        drop(self.listener);
        let ended = timeout(limits::DRAIN, async {
            while connections.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                limit = ?limits::DRAIN,
                "drain timed out; closing connections with requests in flight"
            );
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Waits for a free place, then accepts the next connection.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    if let Err(error) = configure(&stream) {
        tracing::debug!(%error, "setting options of a connection failed");
    }
    Ok((stream, client, place))
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        // An event stream writes so little that a write to a client that vanished never blocks.
        socket.set_tcp_user_timeout(Some(limits::IDLE))?;
        socket.set_tcp_notsent_lowat(limits::UNSENT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::{Request, Response, body::Incoming};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BODY: &str = "hello";

    struct Hello;

    impl Service for Hello {
        type Body = Full<Bytes>;

        async fn answer(&self, _: Request<Incoming>, _: SocketAddr) -> Response<Self::Body> {
            Response::new(Full::from(BODY))
        }
    }

    async fn send(stream: &mut TcpStream) {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
    }

    async fn receive(stream: &mut TcpStream) {
        let mut response = Vec::new();
        while !response.ends_with(BODY.as_bytes()) {
            let read = stream.read_buf(&mut response).await.unwrap();
            assert!(read > 0, "the server closed the connection");
        }
    }

    #[tokio::test]
    async fn a_connection_over_the_limit_waits_for_a_place() {
        let mut server = HttpServer::bind("127.0.0.1:0").await.unwrap();
        server.connections = 1;
        let address = ("127.0.0.1", server.port());
        tokio::spawn(server.serve(Hello, CancellationToken::new()));

        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        send(&mut second).await;
        // Each exchange lets the accept loop run, which would accept a second connection too.
        for _ in 0..10 {
            send(&mut first).await;
            receive(&mut first).await;
        }
        let response = second.try_read(&mut [0]);
        assert_eq!(response.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        receive(&mut second).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_closes_the_connection_of_a_client_that_vanished() {
        let server = HttpServer::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(("127.0.0.1", server.port()))
            .await
            .unwrap();
        let places = Arc::new(Semaphore::new(1));
        let (stream, ..) = accept(&server.listener, &places).await.unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(limits::IDLE));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), limits::UNSENT);
        assert!(stream.nodelay().unwrap());
    }
}
