//! A stream that passes whole and well-formed request heads only.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    super::request::MalformedRequest,
    exchange::Exchange,
    head::{Body, HeadScan},
    limits::{HEAD_BYTES, LINGER, LINGER_BYTES},
    waiting::{Ticket, Waiting},
};

/// Takes the place of a malformed head. The service answers it with the error that [`Exchange`]
/// holds, so the response has the form of all others, after those to earlier requests.
const SUBSTITUTE: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

/// Bytes that one read adds to an unfinished head.
const PIECE: usize = 2048;

/// Passes one request at a time to the reader, and only once its head is whole and well-formed.
///
/// Keeps what arrived of the next head in a buffer of the size of its content, for which
/// [`Waiting`] has a limit over all connections. hyper would take 8 KiB for the first byte.
pub(super) struct Vetted<S> {
    stream: S,
    exchange: Arc<Exchange>,
    waiting: Arc<Waiting>,
    state: State,
    scan: HeadScan,
    /// Bytes that have arrived and that the reader did not get yet.
    held: Vec<u8>,
    /// Number of bytes of `held` that the reader may get.
    passed: usize,
    /// The place among the waiting connections, while the rest of a request is missing.
    ticket: Option<Ticket>,
    linger: Option<Linger>,
}

/// The part of a request that the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body {
        /// Bytes that did not arrive yet.
        missing: u64,
        /// Bytes that the reader has.
        arrived: usize,
    },
    /// A chunked body. hyper finds its end, so no other request follows on this connection.
    Chunks {
        arrived: usize,
    },
    /// A head was rejected. Nothing more is read.
    Rejected,
}

/// Reads and drops what the client still sends after the last response.
struct Linger {
    timer: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Vetted<S> {
    /// The stream reports rejected requests to `exchange`.
    pub(super) fn new(stream: S, exchange: Arc<Exchange>, waiting: Arc<Waiting>) -> Self {
        Self {
            stream,
            exchange,
            waiting,
            state: State::Head,
            scan: HeadScan::default(),
            held: Vec::new(),
            passed: 0,
            ticket: None,
            linger: None,
        }
    }

    /// Whether no byte of a next request has arrived.
    pub(super) fn is_between_requests(&self) -> bool {
        self.state == State::Head && self.held.is_empty()
    }

    /// Returns how many bytes of `bytes`, which begin where the last call ended, the reader may
    /// get: at most those of one request.
    fn vet(&mut self, bytes: &[u8]) -> Result<usize, MalformedRequest> {
        let (start, missing, arrived) = match self.state {
            State::Head => match self.scan.scan(bytes)? {
                None => return Ok(0),
                Some(head) => match head.body {
                    Body::Bytes(length) => (head.bytes, length, 0),
                    Body::Chunked => {
                        self.exchange.end();
                        self.state = State::Chunks {
                            arrived: bytes.len() - head.bytes,
                        };
                        return Ok(bytes.len());
                    }
                },
            },
            State::Body { missing, arrived } => (0, missing, arrived),
            State::Chunks { arrived } => {
                let arrived = arrived + bytes.len();
                self.state = State::Chunks { arrived };
                return Ok(bytes.len());
            }
            State::Rejected => return Ok(0),
        };
        let here = bytes.len() - start;
        let body = usize::try_from(missing).map_or(here, |missing| missing.min(here));
        self.state = match missing - body as u64 {
            0 => State::Head,
            missing => State::Body {
                missing,
                arrived: arrived + body,
            },
        };
        Ok(start + body)
    }

    /// Replaces what is held by a request that the service rejects.
    fn reject(&mut self, malformed: MalformedRequest) {
        self.exchange.reject(malformed);
        self.state = State::Rejected;
        self.held = SUBSTITUTE.to_vec();
        self.passed = SUBSTITUTE.len();
    }

    /// Vets the bytes that are held.
    fn vet_held(&mut self) {
        let held = mem::take(&mut self.held);
        let vetted = self.vet(&held);
        self.held = held;
        match vetted {
            Ok(passed) => self.passed = passed,
            Err(malformed) => self.reject(malformed),
        }
    }

    /// Accounts for the memory of a request whose rest is missing.
    fn account(&mut self) {
        let unfinished = match self.state {
            State::Head => self.held.capacity(),
            State::Body { arrived, .. } | State::Chunks { arrived } => arrived,
            State::Rejected => 0,
        };
        match (unfinished, &self.ticket) {
            (0, _) => self.ticket = None,
            (bytes, Some(ticket)) => ticket.hold(bytes),
            (bytes, None) => {
                let ticket = self.waiting.enter();
                ticket.hold(bytes);
                self.ticket = Some(ticket);
            }
        }
    }

    fn check_evicted(&self, context: &Context<'_>) -> io::Result<()> {
        match &self.ticket {
            Some(ticket) if ticket.poll_evicted(context).is_ready() => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "closed to free its memory or its place",
            )),
            _ => Ok(()),
        }
    }

    /// Gives the reader what it may have of the bytes that are held.
    fn pass(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.passed.min(buffer.remaining());
        buffer.put_slice(&self.held[..count]);
        self.passed -= count;
        self.held.drain(..count);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> Vetted<S> {
    /// Waits until the reader can get a request. Returns `false` if the client closes its side
    /// first.
    ///
    /// # Errors
    /// If the connection fails, times out, or is evicted.
    pub(super) async fn wait(&mut self) -> io::Result<bool> {
        if self.ticket.is_none() {
            self.ticket = Some(self.waiting.enter());
        }
        let arrived = poll_fn(|context| self.poll_held(context)).await?;
        self.ticket = None;
        Ok(arrived)
    }

    /// Reads until the reader may get some of the bytes that are held. Ready with `false` at the
    /// end of the stream.
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            self.vet_held();
            if self.passed > 0 {
                return Poll::Ready(Ok(true));
            }
            if let Some(ticket) = &self.ticket {
                ticket.hold(self.held.capacity());
            }
            self.check_evicted(context)?;
            let mut piece = [0; PIECE];
            let room = PIECE.min(HEAD_BYTES.saturating_sub(self.held.len()).max(1));
            let mut buffer = ReadBuf::new(&mut piece[..room]);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            match buffer.filled() {
                [] if self.held.is_empty() => return Poll::Ready(Ok(false)),
                [] => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                bytes => self.held.extend_from_slice(bytes),
            }
        }
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            timer: Box::pin(sleep_until(Instant::now() + LINGER)),
            left: LINGER_BYTES,
        });
        let mut piece = [0; PIECE];
        while linger.timer.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            linger.left = linger.left.saturating_sub(buffer.filled().len());
            if read.is_err() || buffer.filled().is_empty() || linger.left == 0 {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Vetted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.held.is_empty() && this.state != State::Rejected {
            this.check_evicted(context)?;
            // Most requests arrive whole, straight in the buffer of the reader.
            let start = buffer.filled().len();
            let read = Pin::new(&mut this.stream).poll_read(context, buffer);
            if read.is_pending() && this.state != State::Head {
                this.account();
                this.check_evicted(context)?;
            }
            ready!(read)?;
            let bytes = &buffer.filled()[start..];
            match this.vet(bytes) {
                Ok(passed) if passed == bytes.len() => {
                    if this.ticket.is_some() {
                        this.account();
                    }
                    return Poll::Ready(Ok(()));
                }
                Ok(passed) => {
                    this.held.extend_from_slice(&bytes[passed..]);
                    buffer.set_filled(start + passed);
                    if passed > 0 {
                        this.account();
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(malformed) => {
                    buffer.set_filled(start);
                    this.reject(malformed);
                }
            }
        }
        if this.passed == 0 && this.state != State::Rejected {
            this.account();
            match ready!(this.poll_held(context)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        this.pass(buffer);
        this.account();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Vetted<S> {
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
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            self.exchange.end();
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        if !self.is_between_requests() {
            ready!(self.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
