//! Accept loop of a port, with connection limits and graceful drain.
//!
//! A loop of our own, because the stock server puts each socket behind a lock and checks two more
//! tokens at every wake-up. That costs a tenth of what an answer from Redis costs. A port also
//! needs its own limits, deadlines and shutdown order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use prometheus::IntGauge;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::backoff::Backoff,
    Service,
    addresses::{Addresses, Admission},
    connection::{self, Port},
    limits::{DRAIN, IDLE, Limits, UNSENT},
    metrics::{Closed, ConnectionMetrics},
    waiting::Waiting,
};
use crate::telemetry::OutageLog;

/// Clients that may wait to be accepted. The kernel may allow fewer (`net.core.somaxconn`).
const QUEUE: u32 = 4096;

/// Interval between evictions while no place is free: an evicted connection closes at its next
/// wake-up, which usually follows at once.
const EVICTIONS: Duration = Duration::from_millis(20);

/// A port, bound but not accepting yet.
pub struct HttpServer {
    listener: TcpListener,
    port: u16,
    limits: Limits,
    metrics: Arc<ConnectionMetrics>,
}

impl HttpServer {
    /// Binds `addr`. Port 0 selects a free port.
    ///
    /// # Errors
    /// Returns an error if the process cannot listen on the address.
    pub async fn bind(addr: &str, limits: Limits, metrics: ConnectionMetrics) -> io::Result<Self> {
        let listener = listen(addr).await?;
        let port = listener.local_addr()?.port();
        Ok(Self {
            listener,
            port,
            limits,
            metrics: Arc::new(metrics),
        })
    }

    /// The port in use; not 0, even if the address has port 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Accepts connections until `shutdown`. Then closes the listener and drains requests in
    /// flight, for at most 10 seconds. Logs a failed accept and retries it with backoff.
    pub async fn serve<S: Service>(self, service: S, shutdown: CancellationToken) {
        let Self {
            listener,
            limits,
            metrics,
            ..
        } = self;
        let port = Arc::new(Port {
            service,
            unfinished: Waiting::new(limits.unfinished_bytes, metrics.clone()),
            unread: Waiting::new(limits.unread_bytes, metrics.clone()),
            rest: limits.rest,
            metrics,
        });
        let places = Places::new(&limits, &port);
        let mut connections = JoinSet::new();
        let mut backoff = Backoff::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    backoff = Backoff::default();
                    let Some(Some(place)) = shutdown
                        .run_until_cancelled(places.enter(&stream, client))
                        .await
                    else {
                        continue;
                    };
                    // Each connection gets a child token. A shared token would be one lock that
                    // every connection takes at each wake-up.
                    let (port, shutdown) = (port.clone(), shutdown.child_token());
                    connections.spawn(async move {
                        connection::serve(stream, client, port, shutdown).await;
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
        drop(listener);
        drain(connections).await;
    }
}

/// Listens on the first usable address of `addr`, with room for many clients that connect at once:
/// the kernel drops what exceeds the queue, and clients repeat it after a second.
async fn listen(addr: &str) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "no address");
    for address in lookup_host(addr).await? {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Connections of the process before may still be closing.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(QUEUE)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Waits until all connections have ended, at most the time of a drain.
async fn drain(mut connections: JoinSet<()>) {
    let ended = timeout(DRAIN, async {
        while connections.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            limit = ?DRAIN,
            "drain timed out; closing connections with requests in flight"
        );
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

/// Gives places to connections, of which a port has a limited number.
struct Places<S> {
    port: Arc<Port<S>>,
    free: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    per_address: usize,
    log: OutageLog,
}

impl<S: Service> Places<S> {
    fn new(limits: &Limits, port: &Arc<Port<S>>) -> Self {
        Self {
            port: Arc::clone(port),
            free: Arc::new(Semaphore::new(limits.connections)),
            addresses: Addresses::new(limits.per_address),
            per_address: limits.per_address,
            log: OutageLog::default(),
        }
    }

    /// Waits for a place, which the caller holds as long as the connection is open. Returns `None`
    /// if the address of the client has too many connections.
    async fn enter(&self, stream: &TcpStream, client: SocketAddr) -> Option<Place> {
        let metrics = &self.port.metrics;
        let Some(admission) = self.addresses.admit(client.ip()) else {
            metrics.closed(Closed::Address);
            if self.log.failed() {
                tracing::warn!(
                    limit = self.per_address,
                    runbook = "ApiClosesConnections",
                    "closing further connections of an address"
                );
            }
            return None;
        };
        let permit = self.permit().await?;
        if let Err(error) = configure(stream) {
            tracing::debug!(%error, "setting options of a connection failed");
        }
        let open = metrics.open().clone();
        open.inc();
        Some(Place {
            open,
            _permit: permit,
            _admission: admission,
        })
    }

    /// Waits for a free place. Until there is one, closes connections that wait for their clients,
    /// beginning with the one that has waited longest.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        loop {
            let _ = self.port.unfinished.evict_longest() || self.port.unread.evict_longest();
            let free = Arc::clone(&self.free).acquire_owned();
            if let Ok(permit) = timeout(EVICTIONS, free).await {
                // The semaphore is never closed, so this is no error.
                return permit.ok();
            }
        }
    }
}

/// The place of an open connection.
struct Place {
    open: IntGauge,
    _permit: OwnedSemaphorePermit,
    _admission: Admission,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        // An event stream writes so little that a write to a client that vanished never blocks.
        socket.set_tcp_user_timeout(Some(IDLE))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
