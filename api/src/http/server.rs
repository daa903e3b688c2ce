//! The public port: accepts connections, no more than it can bear, and lets them end in peace.
//!
//! A loop of our own, for the stock server puts each socket behind a lock and asks two more tokens at every wake-up, which
//! costs a tenth of what an answer from Redis costs; and because limits, deadlines and the order of a shutdown are what this
//! port is about.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context;
use shared::runtime::backoff::Backoff;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Front, connection};

/// Connections at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;

/// How long requests in flight may take once the process is to end.
const DRAIN: Duration = Duration::from_secs(10);

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
        let front = Arc::new(front);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
                    // A token of its own: one that all share would be one lock that all take at each wake-up.
                    let (front, shutdown) = (front.clone(), shutdown.child_token());
                    connections.spawn(async move {
                        connection::serve(stream, client, front, shutdown).await;
                        drop(place);
                    });
                }
                // The client went away while it waited.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Without a descriptor to spare, trying again at once would be a busy loop.
                    tracing::warn!(%error, "a connection could not be accepted");
                    shutdown.run_until_cancelled(backoff.wait()).await;
                }
            }
        }
        drop(self.listener);
        let ended = timeout(DRAIN, async {
            while connections.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "connections were closed in the middle of a request"
            );
        }
        Ok(())
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

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    Ok((stream, client.ip(), place))
}
