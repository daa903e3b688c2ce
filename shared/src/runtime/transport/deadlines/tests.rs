//! Tests of the deadlines, with a paused clock.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const REST: Duration = Duration::from_secs(2);

fn metrics() -> Arc<ConnectionMetrics> {
    Arc::new(ConnectionMetrics::unregistered("test"))
}

/// A connection in memory. The paused clock would also advance while a task waits for a socket.
fn connected() -> (Guarded<DuplexStream>, DuplexStream, Arc<Exchange>) {
    connected_with(Waiting::new(1024 * 1024, metrics()), REST)
}

fn connected_with(
    unread: Arc<Waiting>,
    rest: Duration,
) -> (Guarded<DuplexStream>, DuplexStream, Arc<Exchange>) {
    let (server, client) = duplex(1024);
    let exchange = Arc::new(Exchange::default());
    let guarded = Guarded::new(server, exchange.clone(), unread, rest, metrics());
    (guarded, client, exchange)
}

fn closed(guarded: &Guarded<DuplexStream>, reason: Closed) -> u64 {
    guarded.deadlines.metrics.count_of(reason)
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
    assert_eq!(closed(&guarded, Closed::SlowRequest), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_times_out() {
    let (mut guarded, _client, _) = connected();
    let began = Instant::now();
    let error = guarded.write_all(&[0; 4096]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed().as_secs(), IDLE.as_secs());
    assert_eq!(closed(&guarded, Closed::SlowReader), 1);
}

#[tokio::test(start_paused = true)]
async fn above_the_memory_for_responses_the_slowest_reader_is_closed() {
    let unread = Waiting::new(1000, metrics());
    let (mut first, _client, exchange) = connected_with(unread.clone(), REST);
    let (mut second, mut reader, other) = connected_with(unread.clone(), REST);
    exchange.respond(600);
    other.respond(600);
    let slow = tokio::spawn(async move { first.write_all(&[0; 4096]).await });
    tokio::task::yield_now().await;
    let fast = tokio::spawn(async move {
        second.write_all(&[0; 4096]).await?;
        second.flush().await
    });
    let error = slow.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    reader.read_exact(&mut [0; 4096]).await.unwrap();
    fast.await.unwrap().unwrap();
    // A response that was read takes no memory.
    assert!(!unread.evict_longest());
}

#[tokio::test(start_paused = true)]
async fn a_connection_rests_after_a_while_without_a_request() {
    for rest in [REST, Duration::ZERO] {
        let unread = Waiting::new(1000, metrics());
        let (mut guarded, mut client, exchange) = connected_with(unread, rest);
        pass_byte(&mut client, &mut guarded).await;
        exchange.begin();
        let mut silence = Box::pin(async move {
            guarded.write_all(b"response").await.unwrap();
            guarded.read_exact(&mut [0]).await.unwrap();
            guarded
        });
        let began = Instant::now();
        let rested = poll_fn(|context| {
            assert!(silence.as_mut().poll(context).is_pending());
            match exchange.is_resting() {
                true => Poll::Ready(began.elapsed()),
                false => Poll::Pending,
            }
        });
        let rested = rested.await;
        assert!(rested >= rest && rested <= 2 * rest, "{rested:?}");
        client.write_all(b"x").await.unwrap();
        let guarded = silence.await;
        assert!(!exchange.is_resting());
        assert_eq!(closed(&guarded, Closed::SlowRequest), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_does_not_time_out() {
    let mut deadlines = Deadlines::new(Arc::default(), REST, metrics());
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
