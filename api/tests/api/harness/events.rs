//! A client of server-sent events.

use serde_json::Value;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{Request, Response};

/// An open event stream.
pub(crate) struct EventStream {
    stream: TcpStream,
    pub(crate) head: Response,
    /// Bytes after the last decoded chunk.
    received: Vec<u8>,
    /// Text after the last event.
    text: String,
    /// The last chunk, which has no bytes, has arrived.
    is_complete: bool,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

impl EventStream {
    /// Sends `request` and reads the head of the response.
    pub(crate) async fn open(request: Request) -> Self {
        Self::over(request.connect().await).await
    }

    /// Reads the head of the response to the request that was sent on `stream`.
    pub(crate) async fn over(mut stream: TcpStream) -> Self {
        let mut received = Vec::new();
        let end = loop {
            let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => assert!(stream.read_buf(&mut received).await.unwrap() > 0, "no head"),
            }
        };
        let rest = received.split_off(end);
        Self {
            stream,
            head: Response::parse(&received),
            received: rest,
            text: String::new(),
            is_complete: false,
        }
    }

    /// The next event, without comments and the time for a retry. `None` after the last chunk.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = Event::parse(block);
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            if self.is_complete {
                return None;
            }
            if !self.decode_chunk() {
                let read = self.stream.read_buf(&mut self.received).await.unwrap();
                assert!(read > 0, "the connection closed before the last chunk");
            }
        }
    }

    /// Asserts that the next event is `name`, and returns it.
    pub(crate) async fn expect(&mut self, name: &str) -> Event {
        let event = self.event().await.expect("an event");
        assert_eq!(event.name, name, "{event:?}");
        event
    }

    /// Asserts that the next event is a reset with this reason.
    pub(crate) async fn expect_reset(&mut self, reason: &str) {
        let event = self.expect("reset").await;
        assert_eq!(
            (event.id, event.data),
            (None, format!("{{\"reason\":\"{reason}\"}}"))
        );
    }

    fn decode_chunk(&mut self) -> bool {
        let Some(line) = self.received.windows(2).position(|bytes| bytes == b"\r\n") else {
            return false;
        };
        let length = std::str::from_utf8(&self.received[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let (begin, end) = (line + 2, line + 2 + length);
        if self.received.len() < end + 2 {
            return false;
        }
        self.text += std::str::from_utf8(&self.received[begin..end]).unwrap();
        self.received.drain(..end + 2);
        self.is_complete = length == 0;
        true
    }
}

impl Event {
    /// Parses the lines of an event. Returns `None` if it has no data.
    fn parse(block: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
            block.lines().find_map(value)
        };
        Some(Self {
            data: field("data")?,
            name: field("event").expect("a name"),
            id: field("id"),
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}
