//! Tests of the accept loop and of whole connections.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;
use crate::runtime::request::MalformedRequest;

const BODY: &str = "hello";

struct Hello;

impl Service for Hello {
    type Body = Full<Bytes>;

    async fn answer(&self, _: Request<Incoming>, _: SocketAddr) -> Response<Self::Body> {
        Response::new(Full::from(BODY))
    }

    fn reject(&self, malformed: MalformedRequest) -> Response<Self::Body> {
        let mut response = Response::new(Full::from(malformed.detail()));
        *response.status_mut() = malformed.status();
        response
    }
}

/// A running server, which ends with the test.
struct Running {
    port: u16,
    metrics: Arc<ConnectionMetrics>,
    _task: JoinHandle<()>,
}

async fn serve(limits: Limits) -> Running {
    let metrics = ConnectionMetrics::unregistered("test");
    let server = HttpServer::bind("0.0.0.0:0", limits, metrics)
        .await
        .unwrap();
    Running {
        port: server.port(),
        metrics: server.metrics.clone(),
        _task: tokio::spawn(server.serve(Hello, CancellationToken::new())),
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    async fn connect_from(&self, address: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(format!("{address}:0").parse().unwrap())
            .unwrap();
        let server = format!("127.0.0.1:{}", self.port).parse().unwrap();
        socket.connect(server).await.unwrap()
    }

    /// Sends `request` on a new connection and reads until the server closes it.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

async fn send(stream: &mut TcpStream) {
    stream.write_all(get("/").as_bytes()).await.unwrap();
}

async fn receive(stream: &mut TcpStream) {
    let mut response = Vec::new();
    while !response.ends_with(BODY.as_bytes()) {
        let read = stream.read_buf(&mut response).await.unwrap();
        assert!(read > 0, "the server closed the connection");
    }
}

/// Waits until the server closes the connection.
async fn await_close(stream: &mut TcpStream) {
    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_while_the_others_are_served() {
    let limits = Limits {
        rest: Duration::from_secs(3600),
        ..Limits::public(1, 0)
    };
    let server = serve(limits).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
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

#[tokio::test]
async fn a_connection_over_the_limit_takes_the_place_of_the_longest_wait() {
    let server = serve(Limits::public(2, 0)).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HT").await.unwrap();
    let mut served = Vec::new();
    for waiting in [&mut silent, &mut slow] {
        let mut next = server.connect().await;
        send(&mut next).await;
        receive(&mut next).await;
        await_close(waiting).await;
        served.push(next);
    }
    assert_eq!(server.metrics.count_of(Closed::Evicted), 2);
}

#[tokio::test]
async fn an_address_has_its_own_limit() {
    let server = serve(Limits::public(100, 2)).await;
    let mut first = server.connect_from("127.0.0.2").await;
    let _second = server.connect_from("127.0.0.2").await;
    await_close(&mut server.connect_from("127.0.0.2").await).await;
    let mut other = server.connect_from("127.0.0.3").await;
    for stream in [&mut first, &mut other] {
        send(stream).await;
        receive(stream).await;
    }
    assert_eq!(server.metrics.count_of(Closed::Address), 1);
    assert_eq!(server.metrics.open().get(), 3);
    drop(first);
    // The place is free once the server has seen the end of the first connection.
    loop {
        let mut next = server.connect_from("127.0.0.2").await;
        send(&mut next).await;
        if next.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
            break;
        }
    }
}

#[tokio::test]
async fn above_the_memory_for_heads_the_longest_wait_ends() {
    let limits = Limits {
        unfinished_bytes: 32 * 1024,
        ..Limits::public(100, 0)
    };
    let server = serve(limits).await;
    let unfinished = format!("{}\r\nX: {}", get("/").trim_end(), "x".repeat(14_000));
    let mut first = server.connect().await;
    first.write_all(unfinished.as_bytes()).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = server.connect().await;
        other.write_all(unfinished.as_bytes()).await.unwrap();
        others.push(other);
    }
    await_close(&mut first).await;
    assert!(server.metrics.count_of(Closed::Memory) >= 1);
    assert!(
        server
            .exchange(&get("/").replace("Host", "Connection: close\r\nHost"))
            .await
            .ends_with(BODY)
    );
}

#[tokio::test]
async fn a_malformed_request_is_rejected_after_the_responses_to_earlier_ones() {
    let server = serve(Limits::public(100, 0)).await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let smuggled = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\
                    Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let all = [&get("/"), post, smuggled, &get("/")].concat();
    let responses = server.exchange(&all).await;
    let statuses: Vec<&str> = responses
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|response| &response[..3])
        .collect();
    assert_eq!(statuses, ["200", "200", "400"]);
    assert!(responses.contains("\r\nconnection: close\r\n"));
    let detail = MalformedRequest::Length.detail();
    assert!(responses.ends_with(detail), "{responses}");
    assert_eq!(server.metrics.count_of(Closed::Malformed), 1);
}

#[tokio::test]
async fn a_request_without_a_host_ends_the_connection() {
    let server = serve(Limits::public(100, 0)).await;
    let response = server.exchange("GET / HTTP/1.1\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(
        response.ends_with(MalformedRequest::Host.detail()),
        "{response}"
    );
}

#[tokio::test]
async fn no_request_follows_a_chunked_body() {
    let server = serve(Limits::public(100, 0)).await;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    let responses = server.exchange(&[chunked, &get("/")].concat()).await;
    assert_eq!(responses.matches("HTTP/1.1 200 ").count(), 1, "{responses}");
}

#[tokio::test]
async fn the_response_to_a_large_head_arrives_although_the_client_still_sends() {
    let server = serve(Limits::public(100, 0)).await;
    let filler = "x".repeat(200 * 1024);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {filler}\r\n\r\n");
    let response = server.exchange(&request).await;
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
}

#[tokio::test]
async fn a_connection_that_rests_serves_further_requests() {
    let limits = Limits {
        rest: Duration::ZERO,
        ..Limits::public(1, 0)
    };
    let server = serve(limits).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        send(&mut stream).await;
        receive(&mut stream).await;
    }
    // It rests, so another connection takes its place.
    let mut other = server.connect().await;
    send(&mut other).await;
    receive(&mut other).await;
    await_close(&mut stream).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_closes_the_connection_of_a_client_that_vanished() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    configure(&stream).unwrap();
    let socket = socket2::SockRef::from(&stream);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(IDLE));
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
    assert!(stream.nodelay().unwrap());
}
