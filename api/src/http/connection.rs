//! One connection of the public port: it is closed when nothing passes through it any more, or when its client is slow in
//! saying what it wants.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Front;

/// After so long without a byte from its client, or in which the client took none of what it was to be sent, a connection is
/// closed: the client may have gone without a word, or hold it on purpose.
const IDLE: Duration = Duration::from_secs(75);

/// The head of a request must be whole so long after its first byte, however steadily it trickles; the first one so long
/// after the connection was made.
const HEAD: Duration = Duration::from_secs(10);

/// Bytes of a head, and of what is read ahead; a larger head is refused with 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Pieces that are no longer than this together are written as one: the copy costs less than what the kernel takes for a
/// vectored write.
const ONE_PIECE: usize = 4096;

/// Answers the requests that `client` sends through `stream`, until it or `shutdown` ends that; in the latter case the request
/// under way is finished first.
pub(super) async fn serve(
    stream: TcpStream,
    client: IpAddr,
    front: Arc<Front>,
    shutdown: CancellationToken,
) {
    let heads = Arc::new(AtomicU64::new(0));
    let guarded = Guarded::new(stream, heads.clone());
    let front = &*front;
    let service = service_fn(move |request: Request<Incoming>| {
        // Nobody but this connection's own task counts.
        heads.store(heads.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // No route reads a body.
        let (head, _) = request.into_parts();
        let answer = front.answer(head, client);
        answer.map(|response| Ok::<_, Infallible>(response.into()))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            // A client may close its side once it has asked. To look out for that would take another read, into a new buffer,
            // at every request; one that nobody waits for any more ends within its time anyway.
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
        tracing::debug!(%error, "a connection ended before its time");
    }
}

/// A stream whose reads and writes fail once its client has been silent or slow for too long.
struct Guarded {
    stream: TcpStream,
    patience: Patience,
    /// Room for what is put together to be written as one piece.
    piece: Vec<u8>,
}

impl Guarded {
    fn new(stream: TcpStream, heads: Arc<AtomicU64>) -> Self {
        Self {
            stream,
            patience: Patience::new(heads),
            piece: Vec::new(),
        }
    }

    /// While a client takes nothing, hyper may not ask for more of it, so this is the only place to notice.
    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.patience.write(written.is_pending());
        match written {
            Poll::Pending => self.patience.poll(context, Direction::Write),
            ready => ready,
        }
    }
}

/// What a connection waits for.
#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// Deadlines that move with what passes. Only moments are written down; the timer is set anew when it fires, for setting it at
/// every request would cost more than reading the clock.
struct Patience {
    /// How many heads were read whole; counted by whoever gets the requests.
    heads: Arc<AtomicU64>,
    /// The number of the head to which the bytes that were read last belong (or those of a body before it), and when its
    /// first one came.
    head: u64,
    head_began: Instant,
    /// When a byte was read last, or, where that was later, when the client began to let us wait with a write.
    last_byte: Instant,
    write_waits: bool,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    fn new(heads: Arc<AtomicU64>) -> Self {
        let now = Instant::now();
        Self {
            heads,
            head: 1,
            head_began: now,
            last_byte: now,
            write_waits: false,
            timer: Box::pin(sleep_until(now + HEAD)),
        }
    }

    fn read(&mut self) {
        self.last_byte = Instant::now();
        let next = self.heads.load(Ordering::Relaxed) + 1;
        if self.head != next {
            self.head = next;
            self.head_began = self.last_byte;
        }
    }

    /// Takes note of whether a write has to wait. Most need not, and are not worth a reading of the clock.
    fn write(&mut self, waits: bool) {
        if waits && !self.write_waits {
            self.last_byte = Instant::now();
        }
        self.write_waits = waits;
    }

    fn deadline(&self, waiting_for: Direction) -> Instant {
        let idle = self.last_byte + IDLE;
        let in_head = self.head > self.heads.load(Ordering::Relaxed);
        match waiting_for {
            Direction::Read if in_head => idle.min(self.head_began + HEAD),
            Direction::Read | Direction::Write => idle,
        }
    }

    /// Ready, with an error, once the client has been silent or slow for too long.
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
            // A head may begin right after this look.
            self.timer.as_mut().reset(deadline.min(now + HEAD));
        }
        Poll::Pending
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.patience.poll(context, Direction::Read),
            ready => {
                self.patience.read();
                ready
            }
        }
    }
}

impl AsyncWrite for Guarded {
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
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn connected() -> (Guarded, TcpStream, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let heads = Arc::new(AtomicU64::new(0));
        let guarded = Guarded::new(server.unwrap().0, heads.clone());
        (guarded, client.unwrap(), heads)
    }

    async fn read(guarded: &mut Guarded) -> io::Result<usize> {
        guarded.read(&mut [0; 16]).await
    }

    /// Lets `client` send a byte, which the server then reads.
    async fn pass_byte(client: &mut TcpStream, guarded: &mut Guarded) {
        // The time stands still meanwhile: it only moves on by itself where nothing else is to be done.
        client.write_all(b"x").await.unwrap();
        assert_eq!(read(guarded).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_sent_away() {
        let (mut guarded, _client, _) = connected().await;
        let began = Instant::now();
        let error = read(&mut guarded).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), HEAD.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_sent_away() {
        let (mut guarded, _client, _) = connected().await;
        let began = Instant::now();
        let error = loop {
            if let Err(error) = guarded.write_all(&[0; 1 << 16]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_slowly_is_waited_for() {
        let mut patience = Patience::new(Arc::default());
        for _ in 0..3 {
            patience.write(true);
            tokio::time::advance(IDLE / 2).await;
            patience.write(false);
        }
        patience.write(true);
        let began = Instant::now();
        tokio::time::advance(IDLE / 2).await;
        // To be asked again while it waits is no progress.
        patience.write(true);
        let error = poll_fn(|context| patience.poll::<()>(context, Direction::Write)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_cut_off() {
        let (mut guarded, mut client, _) = connected().await;
        let began = Instant::now();
        pass_byte(&mut client, &mut guarded).await;
        tokio::time::advance(HEAD / 2).await;
        pass_byte(&mut client, &mut guarded).await;
        let error = read(&mut guarded).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), HEAD.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_pauses_between_requests_is_waited_for() {
        let (mut guarded, mut client, heads) = connected().await;
        for _ in 0..3 {
            pass_byte(&mut client, &mut guarded).await;
            heads.store(heads.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::advance(IDLE / 2).await;
        }
        let began = Instant::now();
        let error = read(&mut guarded).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), (IDLE - IDLE / 2).as_secs());
    }
}
