//! Tests of the stream that passes whole heads only.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::runtime::transport::metrics::ConnectionMetrics;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";

struct Pair {
    vetted: Vetted<DuplexStream>,
    client: DuplexStream,
    exchange: Arc<Exchange>,
    waiting: Arc<Waiting>,
}

fn connected() -> Pair {
    let (server, client) = duplex(64 * 1024);
    let exchange = Arc::new(Exchange::default());
    let metrics = Arc::new(ConnectionMetrics::unregistered("test"));
    let waiting = Waiting::new(64 * 1024, metrics);
    let vetted = Vetted::new(server, exchange.clone(), waiting.clone());
    Pair {
        vetted,
        client,
        exchange,
        waiting,
    }
}

impl Pair {
    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// Returns what one read of at most `size` bytes gets.
    async fn read_up_to(&mut self, size: usize) -> String {
        let mut buffer = vec![0; size];
        let count = self.vetted.read(&mut buffer).await.unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    async fn read(&mut self) -> String {
        self.read_up_to(8192).await
    }

    /// Asserts that a read gets nothing yet.
    async fn assert_pending(&mut self) {
        let mut buffer = [0; 8192];
        let mut read = Box::pin(self.vetted.read(&mut buffer));
        poll_fn(|context| match read.as_mut().poll(context) {
            Poll::Pending => Poll::Ready(()),
            Poll::Ready(count) => panic!("{count:?}"),
        })
        .await;
    }
}

#[tokio::test]
async fn a_head_is_passed_once_it_is_whole() {
    let mut pair = connected();
    let (start, end) = GET.split_at(20);
    pair.send(start).await;
    pair.assert_pending().await;
    assert_eq!(pair.vetted.held, start.as_bytes());
    pair.send(end).await;
    assert_eq!(pair.read().await, GET);
    assert!(pair.vetted.is_between_requests() && pair.vetted.ticket.is_none());
}

#[tokio::test]
async fn one_request_is_passed_at_a_time() {
    let mut pair = connected();
    let all = [POST, "hello", GET, POST, "he"].concat();
    pair.send(&all).await;
    assert_eq!(pair.read().await, [POST, "hello"].concat());
    assert!(!pair.vetted.is_between_requests());
    assert_eq!(pair.read().await, GET);
    assert_eq!(pair.read().await, [POST, "he"].concat());
    pair.send(&["llo", GET].concat()).await;
    assert_eq!(pair.read().await, "llo");
    assert_eq!(pair.read().await, GET);
    assert!(pair.vetted.is_between_requests());
}

#[tokio::test]
async fn a_small_buffer_gets_a_request_in_parts() {
    let mut pair = connected();
    // The end of the head arrives later, so all of it is held.
    pair.send(&POST[..10]).await;
    pair.assert_pending().await;
    pair.send(&[&POST[10..], "hello", GET].concat()).await;
    let mut request = String::new();
    while request.len() < POST.len() + 5 {
        request += &pair.read_up_to(7).await;
    }
    assert_eq!(request, [POST, "hello"].concat());
    assert_eq!(pair.read().await, GET);
}

#[tokio::test]
async fn a_malformed_head_is_replaced_and_ends_the_stream() {
    let mut pair = connected();
    pair.send(&[GET, "GET / HTTP/1.1\r\nHost : a\r\n\r\n", GET].concat())
        .await;
    assert_eq!(pair.read().await, GET);
    assert_eq!(pair.exchange.malformed(), None);
    assert_eq!(pair.read().await.as_bytes(), SUBSTITUTE);
    assert_eq!(pair.exchange.malformed(), Some(MalformedRequest::Header));
    assert_eq!(pair.read().await, "");
    assert!(!pair.waiting.evict_longest());
}

#[tokio::test]
async fn a_chunked_body_is_the_last_of_its_connection() {
    let mut pair = connected();
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    pair.send(&[chunked, "0\r\n\r\n", GET].concat()).await;
    assert!(pair.read().await.starts_with(chunked));
    assert!(pair.exchange.is_last());
}

#[tokio::test]
async fn an_evicted_connection_fails_in_a_head_in_a_body_and_before() {
    for start in ["", "GET /", &[POST, "he"].concat()] {
        let mut pair = connected();
        pair.send(start).await;
        if start.ends_with("he") {
            assert_eq!(pair.read().await, start);
            pair.assert_pending().await;
        } else if !start.is_empty() {
            pair.assert_pending().await;
        } else {
            pair.vetted.ticket = Some(pair.waiting.enter());
        }
        assert!(pair.waiting.evict_longest(), "{start:?}");
        let error = pair.vetted.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{start:?}");
    }
}

#[tokio::test]
async fn a_whole_request_takes_no_place() {
    let mut pair = connected();
    for request in [GET, &[POST, "hello"].concat()] {
        pair.send(request).await;
        assert_eq!(pair.read().await, request);
        assert!(!pair.waiting.evict_longest());
    }
}

#[tokio::test]
async fn the_end_of_the_stream_is_passed_between_requests_only() {
    for (start, is_error) in [("", false), (GET, false), ("GET", true)] {
        let mut pair = connected();
        pair.send(start).await;
        pair.client.shutdown().await.unwrap();
        let mut all = String::new();
        let end = pair.vetted.read_to_string(&mut all).await;
        assert_eq!(end.is_err(), is_error, "{start:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_rejected_request_is_read_for_a_limited_time() {
    let mut pair = connected();
    pair.send(" ").await;
    pair.read().await;
    let began = Instant::now();
    let closing = tokio::spawn(async move { pair.vetted.shutdown().await });
    // The client keeps its side open.
    closing.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), LINGER);
}

#[tokio::test(start_paused = true)]
async fn a_connection_between_requests_closes_at_once() {
    let mut pair = connected();
    let began = Instant::now();
    pair.vetted.shutdown().await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}
