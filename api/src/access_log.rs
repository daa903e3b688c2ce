//! The access log: which caller read which order. One JSON object per line on standard error, with
//! the target `access`.
//!
//! The log level (`RUST_LOG`) does not apply to it, so that fewer messages do not mean
//! fewer lines. Requests never wait for it: a thread of its own writes the lines. If standard error
//! is not read in time, the log lacks lines, and a counter has their number.

use std::{
    cell::RefCell,
    io::Write,
    mem,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use serde::{Serialize, Serializer};
use shared::order::OrderUid;

/// Maximum bytes of lines that wait to be written, some 15 000 lines.
const WAITING_BYTES: usize = 4 << 20;
/// Bytes that an empty buffer keeps.
const KEPT_BYTES: usize = 256 << 10;
/// Time in which the thread gathers lines, so that one write has many of them.
const GATHER: Duration = Duration::from_millis(10);
/// Maximum time for the last lines at a shutdown.
const CLOSE: Duration = Duration::from_secs(1);

/// One request to an operation. Holds no personal data of an order, and no values of a query.
#[derive(Serialize)]
pub struct Line<'a> {
    /// Name of the caller; `None` without valid credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<&'a str>,
    /// Its label in metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// Address of the client: of the last proxy, if there is one.
    pub client: std::net::IpAddr,
    /// HTTP method.
    pub method: &'a str,
    /// Template of the path.
    pub route: &'static str,
    /// The order in the path.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "uid")]
    pub uid: Option<OrderUid>,
    /// HTTP status.
    pub status: u16,
    /// The tier that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<&'a str>,
    /// Number of orders in the response. An order counts each time that a stream sends it.
    pub orders: u64,
    /// The orders in the response; none if the path has the order, or in an export or a stream.
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "uids")]
    pub uids: &'a [OrderUid],
    /// Bytes of the body.
    pub bytes: u64,
    /// Milliseconds until the response was ready; of a stream, until its end.
    pub duration_ms: f64,
    /// `X-Request-Id`.
    pub request_id: &'a str,
}

fn uid<S: Serializer>(uid: &Option<OrderUid>, serializer: S) -> Result<S::Ok, S::Error> {
    uid.as_ref().map(OrderUid::as_str).serialize(serializer)
}

fn uids<S: Serializer>(uids: &[OrderUid], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(uids.iter().map(OrderUid::as_str))
}

/// The access log. Clones share it.
#[derive(Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
    ended: Arc<Mutex<mpsc::Receiver<()>>>,
}

struct Shared {
    lines: Mutex<Lines>,
    filled: Condvar,
    dropped: IntCounter,
}

#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    is_closed: bool,
}

impl AccessLog {
    /// Writes to `output` from a thread of its own.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub fn start(
        output: impl Write + Send + 'static,
        dropped: IntCounter,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            lines: Mutex::default(),
            filled: Condvar::new(),
            dropped,
        });
        let (end, ended) = mpsc::channel();
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn({
                let shared = shared.clone();
                move || {
                    shared.write_to(output);
                    // Fails only if the log was dropped without being closed.
                    let _ = end.send(());
                }
            })?;
        Ok(Self {
            shared,
            ended: Arc::new(Mutex::new(ended)),
        })
    }

    /// Adds a line. Counts it as dropped if too many lines wait.
    pub fn write(&self, line: &Line<'_>) {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.format(line, Utc::now());
            self.shared.push(&scratch.line);
        });
    }

    /// Writes the lines that wait, for at most a second. Later lines are dropped.
    pub fn close(&self) {
        self.shared.lines.lock().is_closed = true;
        self.shared.filled.notify_one();
        if self.ended.lock().recv_timeout(CLOSE).is_err() {
            tracing::warn!(limit = ?CLOSE, "writing the last lines of the access log timed out");
        }
    }
}

impl Shared {
    fn push(&self, line: &[u8]) {
        let mut lines = self.lines.lock();
        if lines.is_closed || lines.text.len() + line.len() > WAITING_BYTES {
            self.dropped.inc();
            return;
        }
        let is_first = lines.text.is_empty();
        lines.text.extend_from_slice(line);
        drop(lines);
        if is_first {
            self.filled.notify_one();
        }
    }

    /// Writes lines until the log is closed.
    fn write_to(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut lines = self.lines.lock();
            self.filled.wait_while(&mut lines, |lines| {
                lines.text.is_empty() && !lines.is_closed
            });
            if lines.text.is_empty() {
                return;
            }
            if !lines.is_closed {
                drop(lines);
                thread::sleep(GATHER);
                lines = self.lines.lock();
            }
            mem::swap(&mut lines.text, &mut batch);
            drop(lines);
            // One write, so that no other line of the log comes in between.
            if output.write_all(&batch).is_err() {
                let count = batch.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.inc_by(count as u64);
            }
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Space for the line that a thread formats, and the text of the last second.
#[derive(Default)]
struct Scratch {
    line: Vec<u8>,
    second: i64,
    /// The date and time of `second`, such as `2026-01-31T12:00:00`.
    text: String,
}

impl Scratch {
    fn format(&mut self, line: &Line<'_>, now: DateTime<Utc>) {
        if self.text.is_empty() || self.second != now.timestamp() {
            self.second = now.timestamp();
            self.text = now.to_rfc3339_opts(SecondsFormat::Secs, true);
            self.text.pop();
        }
        self.line.clear();
        // Writes to a vector, and a line that serde can serialize, never fail.
        let _ = write!(
            self.line,
            "{{\"timestamp\":\"{}.{:06}Z\",\"level\":\"INFO\",\"target\":\"access\",",
            self.text,
            now.timestamp_subsec_micros() % 1_000_000
        );
        let start = self.line.len();
        let _ = serde_json::to_writer(&mut self.line, line);
        // The brace that begins the object of `line`.
        self.line.remove(start);
        self.line.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::{io, net::Ipv4Addr};

    use serde_json::{Value, json};

    use super::*;

    fn line<'a>(caller: Option<&'a str>, uids: &'a [OrderUid]) -> Line<'a> {
        Line {
            caller,
            key: caller,
            client: Ipv4Addr::LOCALHOST.into(),
            method: "GET",
            route: "/order/{order_uid}",
            uid: OrderUid::parse("b563").ok(),
            status: 200,
            source: Some("local"),
            orders: 1,
            uids,
            bytes: 812,
            duration_ms: 0.125,
            request_id: "id",
        }
    }

    /// What was written. The lock blocks the writer, like a pipe that is full.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Output {
        fn lines(&self) -> Vec<Value> {
            let text = String::from_utf8(self.0.lock().clone()).unwrap();
            let lines = text.lines();
            lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Always fails.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "help").unwrap()
    }

    #[test]
    fn a_line_is_one_object_in_the_form_of_the_other_log_lines() {
        let output = Output::default();
        let log = AccessLog::start(output.clone(), counter()).unwrap();
        let uids = [OrderUid::parse("a").unwrap(), OrderUid::parse("b").unwrap()];
        log.write(&line(Some("the \"shop\"\n"), &[]));
        log.write(&Line {
            uid: None,
            source: None,
            ..line(None, &uids)
        });
        log.close();
        let mut lines = output.lines();
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            let time = line.remove("timestamp").unwrap();
            let time = DateTime::parse_from_rfc3339(time.as_str().unwrap()).unwrap();
            assert!((Utc::now() - time.to_utc()).num_hours() < 1, "{time}");
        }
        let both = json!({
            "level": "INFO", "target": "access", "client": "127.0.0.1", "method": "GET",
            "route": "/order/{order_uid}", "status": 200, "orders": 1, "bytes": 812,
            "duration_ms": 0.125, "request_id": "id",
        });
        let mut first = both.clone();
        first["caller"] = "the \"shop\"\n".into();
        first["key"] = "the \"shop\"\n".into();
        first["uid"] = "b563".into();
        first["source"] = "local".into();
        let mut second = both;
        second["uids"] = json!(["a", "b"]);
        assert_eq!(lines, [first, second]);
    }

    #[test]
    fn the_time_has_six_decimals_in_each_second() {
        let mut scratch = Scratch::default();
        for micros in [
            1_769_817_600_000_001_i64,
            1_769_817_600_999_999,
            1_769_817_601_000_000,
        ] {
            let now = DateTime::from_timestamp_micros(micros).unwrap();
            scratch.format(&line(None, &[]), now);
            let expected = now.to_rfc3339_opts(SecondsFormat::Micros, true);
            let value: Value = serde_json::from_slice(&scratch.line).unwrap();
            assert_eq!(value["timestamp"], expected);
        }
    }

    #[test]
    fn lines_that_find_no_space_are_dropped_and_counted_while_nothing_waits() {
        let (output, dropped) = (Output::default(), counter());
        let log = AccessLog::start(output.clone(), dropped.clone()).unwrap();
        let full = output.0.lock();
        let mut written = 0_u64;
        while dropped.get() == 0 {
            log.write(&line(Some("shop"), &[]));
            written += 1;
        }
        drop(full);
        log.close();
        log.write(&line(Some("late"), &[]));
        assert_eq!(dropped.get(), 2);
        assert_eq!(output.lines().len() as u64, written - 1);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let dropped = counter();
        let log = AccessLog::start(Closed, dropped.clone()).unwrap();
        for _ in 0..3 {
            log.write(&line(Some("shop"), &[]));
        }
        log.close();
        assert_eq!(dropped.get(), 3);
    }
}
