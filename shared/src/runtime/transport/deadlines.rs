//! Deadlines of one connection: it closes when the client is idle, sends a request too slowly, does
//! not read its response, or leaves an event stream.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    exchange::Exchange,
    limits::{HEAD, IDLE},
    metrics::{Closed, ConnectionMetrics},
    waiting::{Ticket, Waiting},
};

/// Pieces of at most this many bytes in total are copied into one write. The copy costs less than
/// the kernel needs for a vectored write.
const ONE_PIECE: usize = 4096;

/// A stream whose reads and writes time out if the client is idle or slow for too long.
pub(super) struct Guarded<S> {
    stream: S,
    exchange: Arc<Exchange>,
    deadlines: Deadlines,
    /// Buffer that joins small pieces into one write.
    piece: Vec<u8>,
    /// The byte that [`Guarded::detect_close`] read, if any.
    ahead: Option<u8>,
    unread: Arc<Waiting>,
    /// The place among the connections whose clients do not read, while a write is blocked.
    ticket: Option<Ticket>,
}

impl<S> Guarded<S> {
    /// The caller reports the progress of requests to `exchange`. While the client does not read, a
    /// response counts in `unread`. After `rest` without a request, the connection rests.
    pub(super) fn new(
        stream: S,
        exchange: Arc<Exchange>,
        unread: Arc<Waiting>,
        rest: Duration,
        metrics: Arc<ConnectionMetrics>,
    ) -> Self {
        Self {
            stream,
            deadlines: Deadlines::new(exchange.clone(), rest, metrics),
            exchange,
            piece: Vec::new(),
            ahead: None,
            unread,
            ticket: None,
        }
    }

    /// Checks the deadline of a blocked write, and the memory of its response. While a write is
    /// blocked, hyper may not read, so no other place notices.
    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.deadlines.write(written.is_pending());
        if written.is_ready() {
            return written;
        }
        let ticket = self.ticket.get_or_insert_with(|| {
            let ticket = self.unread.enter();
            ticket.hold(self.exchange.response_bytes());
            ticket
        });
        if ticket.poll_evicted(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "closed to free the memory of its response",
            )));
        }
        self.deadlines.poll(context, Direction::Write)
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Returns an error if the client has closed its side. hyper reads nothing during a response,
    /// so a client that leaves a silent stream would otherwise keep its connection until the next
    /// write fails.
    ///
    /// A client may send its next request early: then its first byte is kept for the next read.
    fn detect_close(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.ahead.is_some() {
            return Ok(());
        }
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) => {
                self.ahead = buffer.filled().first().copied();
                match self.ahead {
                    Some(_) => Ok(()),
                    None => Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the client left the stream",
                    )),
                }
            }
        }
    }
}

/// The operation that a connection waits for.
#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// Deadlines of a connection, which move with each byte. Stores only moments and resets the timer
/// when it fires: resetting the timer for each request would cost more than reading the clock.
struct Deadlines {
    exchange: Arc<Exchange>,
    /// Number of the head that the last bytes belong to (or the body before it), and the time of
    /// its first byte.
    head: u64,
    head_began: Instant,
    /// Whether a response was written after the last byte was read. Then no head is begun, and the
    /// next byte begins one.
    answered: bool,
    /// Time of the last byte read, or of the start of a blocked write if that is later.
    last_byte: Instant,
    write_waits: bool,
    timer: Pin<Box<Sleep>>,
    rest: Duration,
    metrics: Arc<ConnectionMetrics>,
}

impl Deadlines {
    fn new(exchange: Arc<Exchange>, rest: Duration, metrics: Arc<ConnectionMetrics>) -> Self {
        let now = Instant::now();
        Self {
            exchange,
            head: 1,
            head_began: now,
            answered: false,
            last_byte: now,
            write_waits: false,
            timer: Box::pin(sleep_until(now + interval(rest))),
            rest,
            metrics,
        }
    }

    fn read(&mut self) {
        self.last_byte = Instant::now();
        self.exchange.rest(false);
        let next = self.exchange.heads() + 1;
        if self.head != next || self.answered {
            self.head = next;
            self.head_began = self.last_byte;
            self.answered = false;
        }
    }

    /// Records whether a write is blocked. Most writes are not, and skip reading the clock.
    fn write(&mut self, waits: bool) {
        if waits && !self.write_waits {
            self.last_byte = Instant::now();
        }
        self.write_waits = waits;
        self.answered |= !waits;
    }

    fn deadline(&self, waiting_for: Direction) -> Instant {
        let idle = self.last_byte + IDLE;
        let in_head = !self.answered && self.head > self.exchange.heads();
        match waiting_for {
            Direction::Read if in_head => idle.min(self.head_began + HEAD),
            Direction::Read | Direction::Write => idle,
        }
    }

    /// Ready with a `TimedOut` error after the deadline, else pending.
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        waiting_for: Direction,
    ) -> Poll<io::Result<T>> {
        let waits_for_request =
            matches!(waiting_for, Direction::Read) && self.answered && !self.write_waits;
        if waits_for_request && self.rest.is_zero() {
            self.exchange.rest(true);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            let (now, deadline) = (Instant::now(), self.deadline(waiting_for));
            if deadline <= now {
                match waiting_for {
                    // An idle client that has its response did nothing wrong.
                    Direction::Read if self.answered => {}
                    Direction::Read => self.metrics.closed(Closed::SlowRequest),
                    Direction::Write => self.metrics.closed(Closed::SlowReader),
                }
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if waits_for_request && self.last_byte + self.rest <= now {
                self.exchange.rest(true);
            }
            // A head may begin right after this check, and a rest too.
            self.timer
                .as_mut()
                .reset(deadline.min(now + interval(self.rest)));
        }
        Poll::Pending
    }
}

/// Time between two checks of the deadlines.
fn interval(rest: Duration) -> Duration {
    if rest.is_zero() { HEAD } else { rest.min(HEAD) }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(byte) = self.ahead.take() {
            buffer.put_slice(&[byte]);
            self.deadlines.read();
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.deadlines.poll(context, Direction::Read),
            ready => {
                self.deadlines.read();
                ready
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, piece, .. } = &mut *self;
        let stream = Pin::new(stream);
        let written = if pieces.iter().map(|piece| piece.len()).sum::<usize>() > ONE_PIECE {
            stream.poll_write_vectored(context, pieces)
        } else {
            piece.clear();
            pieces
                .iter()
                .for_each(|bytes| piece.extend_from_slice(bytes));
            stream.poll_write(context, piece)
        };
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.ends_with_client() {
            self.detect_close(context)?;
        }
        // hyper flushes once it has written all that it holds.
        self.ticket = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
