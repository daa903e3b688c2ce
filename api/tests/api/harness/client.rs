//! A minimal HTTP client: one connection per request, or one that stays open.

use std::net::{Ipv4Addr, SocketAddr};

use shared::order::Order;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// A request that is not sent yet.
pub(crate) struct Request {
    port: u16,
    head: String,
    body: String,
}

/// A connection that stays open between requests.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes after the last response.
    received: Vec<u8>,
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(port: u16, method: &str, path: &str) -> Self {
        Self {
            port,
            head: format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"),
            body: String::new(),
        }
    }

    /// A request with exactly this head; `head` has no empty line at its end.
    pub(crate) fn verbatim(port: u16, head: &str) -> Self {
        Self {
            port,
            head: head.to_owned(),
            body: String::new(),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Adds a body and its length.
    pub(crate) fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self.header("Content-Length", &body.len().to_string())
    }

    /// Sends the request without waiting for the response.
    pub(crate) async fn connect(self) -> TcpStream {
        self.connect_through(TcpSocket::new_v4().unwrap()).await
    }

    /// Like [`Request::connect`], through a socket with other options.
    pub(crate) async fn connect_through(self, socket: TcpSocket) -> TcpStream {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = socket.connect(address).await.unwrap();
        stream
            .write_all(format!("{}\r\n{}", self.head, self.body).as_bytes())
            .await
            .unwrap();
        stream
    }

    /// Sends the request and reads the response.
    pub(crate) async fn send(self) -> Response {
        let mut stream = self.connect().await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        Response::parse(&bytes)
    }
}

impl Connection {
    pub(crate) async fn open(port: u16) -> Self {
        Self {
            stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(),
            received: Vec::new(),
        }
    }

    /// Sends `text`, verbatim.
    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends `text` if the server has not closed the connection.
    pub(crate) async fn try_send(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Reads the next response, which has a `Content-Length`.
    pub(crate) async fn receive(&mut self) -> Response {
        loop {
            if let Some((response, length)) = Response::first_of(&self.received) {
                self.received.drain(..length);
                return response;
            }
            assert!(self.read().await > 0, "the server closed the connection");
        }
    }

    /// Waits until the server closes the connection.
    pub(crate) async fn closed(&mut self) {
        assert_eq!(self.read().await, 0);
    }

    async fn read(&mut self) -> usize {
        self.stream.read_buf(&mut self.received).await.unwrap()
    }
}

impl Response {
    /// The first response in `bytes` and its length; `None` if it is incomplete.
    fn first_of(bytes: &[u8]) -> Option<(Self, usize)> {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let body: usize = Self::parse(&bytes[..head])
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .expect("a response with a length");
        let whole = bytes.get(..head + body)?;
        Some((Self::parse(whole), whole.len()))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a response with a head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok());
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self {
            status: status.expect("a response with a status"),
            headers,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn source(&self) -> Option<&str> {
        self.header("x-source")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Asserts that the response is `order`, from the tier `source`.
    #[track_caller]
    pub(crate) fn assert_order(&self, source: &str, order: &Order) {
        assert_eq!(
            (self.status, self.source()),
            (200, Some(source)),
            "{self:?}"
        );
        assert_eq!(self.body, order.to_json());
    }

    /// Asserts that the response is a problem with this status and code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let body = self.json();
        assert_eq!(
            (body["code"].as_str(), body["status"].as_u64()),
            (Some(code), Some(u64::from(status)))
        );
        for member in ["type", "title", "detail"] {
            assert!(body[member].is_string(), "{member} is missing in {body}");
        }
    }

    /// Asserts that the response is a problem with this status and code, and with `Retry-After`.
    #[track_caller]
    pub(crate) fn assert_temporary_problem(&self, status: u16, code: &str) {
        self.assert_problem(status, code);
        let seconds = self.header("retry-after").map(str::parse::<u32>);
        assert!(matches!(seconds, Some(Ok(_))), "{self:?}");
    }
}
