//! Deadlines of one connection: it closes when the client is idle, sends a request too slowly, does
//! not read its response, or leaves an event stream.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    exchange::Exchange,
    limits::{HEAD, IDLE},
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
}

impl<S> Guarded<S> {
    /// The caller reports the progress of requests to `exchange`.
    pub(super) fn new(stream: S, exchange: Arc<Exchange>) -> Self {
        Self {
            stream,
            deadlines: Deadlines::new(exchange.clone()),
            exchange,
            piece: Vec::new(),
            ahead: None,
        }
    }

    /// Checks the deadline of a blocked write. While a write is blocked, hyper may not read, so no
    /// other place notices.
    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.deadlines.write(written.is_pending());
        match written {
            Poll::Pending => self.deadlines.poll(context, Direction::Write),
            ready => ready,
        }
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
}

impl Deadlines {
    fn new(exchange: Arc<Exchange>) -> Self {
        let now = Instant::now();
        Self {
            exchange,
            head: 1,
            head_began: now,
            answered: false,
            last_byte: now,
            write_waits: false,
            timer: Box::pin(sleep_until(now + HEAD)),
        }
    }

    fn read(&mut self) {
        self.last_byte = Instant::now();
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
        while self.timer.as_mut().poll(context).is_ready() {
            let (now, deadline) = (Instant::now(), self.deadline(waiting_for));
            if deadline <= now {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // A head may begin right after this check.
            self.timer.as_mut().reset(deadline.min(now + HEAD));
        }
        Poll::Pending
    }
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
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A connection in memory. The paused clock would also advance while a task waits for a socket.
    fn connected() -> (Guarded<DuplexStream>, DuplexStream, Arc<Exchange>) {
        let (server, client) = duplex(1024);
        let exchange = Arc::new(Exchange::default());
        (Guarded::new(server, exchange.clone()), client, exchange)
    }

    async fn read(guarded: &mut Guarded<DuplexStream>) -> io::Result<usize> {
        guarded.read(&mut [0; 16]).await
    }

    /// Waits for a byte that never arrives. Returns the seconds until the timeout.
    async fn seconds_until_timeout(guarded: &mut Guarded<DuplexStream>) -> u64 {
        let began = Instant::now();
        let error = read(guarded).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        began.elapsed().as_secs()
    }

    /// Sends one byte from `client`, which the server then reads.
    async fn pass_byte(client: &mut DuplexStream, guarded: &mut Guarded<DuplexStream>) {
        client.write_all(b"x").await.unwrap();
        assert_eq!(read(guarded).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_times_out() {
        let (mut guarded, _client, _) = connected();
        assert_eq!(seconds_until_timeout(&mut guarded).await, HEAD.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_times_out() {
        let (mut guarded, _client, _) = connected();
        let began = Instant::now();
        let error = guarded.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_does_not_time_out() {
        let mut deadlines = Deadlines::new(Arc::default());
        for _ in 0..3 {
            deadlines.write(true);
            tokio::time::advance(IDLE / 2).await;
            deadlines.write(false);
        }
        deadlines.write(true);
        let began = Instant::now();
        tokio::time::advance(IDLE / 2).await;
        // A repeated attempt while the write is blocked is no progress.
        deadlines.write(true);
        let error = poll_fn(|context| deadlines.poll::<()>(context, Direction::Write)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_request_head_times_out() {
        let (mut guarded, mut client, _) = connected();
        pass_byte(&mut client, &mut guarded).await;
        tokio::time::advance(HEAD / 2).await;
        pass_byte(&mut client, &mut guarded).await;
        let rest = HEAD - HEAD / 2;
        assert_eq!(seconds_until_timeout(&mut guarded).await, rest.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_after_a_response_times_out() {
        let (mut guarded, mut client, exchange) = connected();
        pass_byte(&mut client, &mut guarded).await;
        exchange.begin();
        guarded.write_all(b"response").await.unwrap();
        tokio::time::advance(IDLE / 2).await;
        pass_byte(&mut client, &mut guarded).await;
        assert_eq!(seconds_until_timeout(&mut guarded).await, HEAD.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_times_out_and_a_pause_after_its_response_may_last_the_idle_limit() {
        let (mut guarded, mut client, exchange) = connected();
        pass_byte(&mut client, &mut guarded).await;
        exchange.begin();
        // The body comes in later reads than the head.
        pass_byte(&mut client, &mut guarded).await;
        tokio::time::advance(HEAD / 2).await;
        pass_byte(&mut client, &mut guarded).await;
        let rest = HEAD - HEAD / 2;
        assert_eq!(
            guarded.deadlines.deadline(Direction::Read),
            Instant::now() + rest
        );
        guarded.write_all(b"response").await.unwrap();
        assert_eq!(seconds_until_timeout(&mut guarded).await, IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_between_requests_may_last_the_idle_limit() {
        let (mut guarded, mut client, exchange) = connected();
        for _ in 0..3 {
            pass_byte(&mut client, &mut guarded).await;
            exchange.begin();
            tokio::time::advance(IDLE / 2).await;
        }
        let rest = IDLE - IDLE / 2;
        assert_eq!(seconds_until_timeout(&mut guarded).await, rest.as_secs());
    }

    #[tokio::test]
    async fn only_a_stream_ends_when_the_client_closes_its_side() {
        let (mut guarded, mut client, exchange) = connected();
        exchange.begin();
        client.shutdown().await.unwrap();
        guarded.flush().await.unwrap();
        exchange.end_with_client();
        let error = guarded.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_request_that_follows_a_stream_is_complete() {
        let (mut guarded, mut client, exchange) = connected();
        exchange.begin();
        exchange.end_with_client();
        guarded.flush().await.unwrap();
        client.write_all(b"GET").await.unwrap();
        guarded.flush().await.unwrap();
        exchange.begin();
        let mut received = [0; 3];
        guarded.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"GET");
        client.shutdown().await.unwrap();
        guarded.flush().await.unwrap();
    }
}
