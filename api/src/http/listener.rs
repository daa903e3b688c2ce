//! The public port's connections: without Nagle's delay, limited in number, and closed when nothing happens on them.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use poem::{
    http::uri::Scheme,
    listener::Acceptor,
    web::{LocalAddr, RemoteAddr},
};
use shared::runtime::backoff::Backoff;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};

/// Connections at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;

/// After so long without a byte from the client its connection is closed: it may have gone without a word, or hold the
/// connection on purpose.
const IDLE: Duration = Duration::from_secs(75);

/// Accepts the connections of the public port.
pub(super) struct Connections {
    listener: TcpListener,
    local: LocalAddr,
    places: Arc<Semaphore>,
    backoff: Backoff,
}

impl Connections {
    pub(super) fn new(listener: TcpListener) -> io::Result<Self> {
        let local = LocalAddr(listener.local_addr()?.into());
        Ok(Self {
            listener,
            local,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            backoff: Backoff::default(),
        })
    }
}

impl Acceptor for Connections {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![self.local.clone()]
    }

    async fn accept(&mut self) -> io::Result<(Connection, LocalAddr, RemoteAddr, Scheme)> {
        let place = self
            .places
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        match self.listener.accept().await {
            Ok((stream, remote)) => {
                self.backoff = Backoff::default();
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                let connection = Connection {
                    stream,
                    _place: place,
                    idle: Idle::new(),
                };
                Ok((
                    connection,
                    self.local.clone(),
                    RemoteAddr(remote.into()),
                    Scheme::HTTP,
                ))
            }
            Err(error) => {
                // poem tries again at once; without descriptors to spare that would be a busy loop.
                tracing::warn!(%error, "a connection could not be accepted");
                self.backoff.wait().await;
                Err(error)
            }
        }
    }
}

/// A connection of the public port.
pub(super) struct Connection {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    idle: Idle,
}

/// A deadline that moves with every byte. Only the moment is written down at each of them; the timer itself is set anew
/// when it fires too early, for setting it at every request would cost more than reading the clock.
struct Idle {
    last_read: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            last_read: now,
            timer: Box::pin(sleep_until(now + IDLE)),
        }
    }

    fn touch(&mut self) {
        self.last_read = Instant::now();
    }

    /// Ready once nothing was read for [`IDLE`].
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let deadline = self.last_read + IDLE;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self
                .idle
                .poll(context)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => {
                self.idle.touch();
                ready
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
