//! Requests orders from the api after they were sent or erased. Smoke tests check the whole path
//! from Kafka to a response.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use shared::config::read_text;
use ureq::Agent;

use crate::cli;
use crate::interrupt::Interrupt;

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between two requests for the same order.
const INTERVAL: Duration = Duration::from_millis(100);

/// Maximum number of orders to request, which limits the memory use.
pub(crate) const MAX_ORDERS: usize = 1_000_000;

/// What the api must return for each order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The order.
    Stored,
    /// 410: the order is erased.
    Erased,
}

impl Expected {
    /// What the api does with an order that is as expected.
    fn verb(self) -> &'static str {
        match self {
            Self::Stored => "returns",
            Self::Erased => "reports as erased",
        }
    }
}

/// Client of the api that must show what was sent.
pub(crate) struct Verify {
    expected: Expected,
    agent: Agent,
    base: String,
    authorization: Option<String>,
    timeout: Duration,
}

impl Verify {
    /// Returns the client that the options describe, or `None` without `--verify`.
    ///
    /// # Errors
    /// If the key file cannot be read.
    pub(crate) fn new(
        options: &cli::Verify,
        expected: Expected,
        timeout: Duration,
    ) -> anyhow::Result<Option<Self>> {
        let Some(url) = &options.verify else {
            return Ok(None);
        };
        Ok(Some(Self {
            expected,
            agent: Agent::config_builder()
                .timeout_global(Some(REQUEST_TIMEOUT))
                .http_status_as_error(false)
                .build()
                .into(),
            base: url.clone(),
            authorization: options.api_key_file.as_deref().map(bearer).transpose()?,
            timeout,
        }))
    }

    /// Requests each order until the api returns what is expected. Returns the number of orders for
    /// which it did: fewer than all only after an interrupt.
    ///
    /// # Errors
    /// If that takes too long, the api rejects the API key, or the response is not the order.
    pub(crate) fn wait_for(&self, uids: &[String], interrupt: &Interrupt) -> anyhow::Result<usize> {
        let started = Instant::now();
        for (index, uid) in uids.iter().enumerate() {
            while let Err(problem) = self.request(uid)? {
                if interrupt.exit_code().is_some() {
                    return Ok(index);
                }
                ensure!(
                    started.elapsed() < self.timeout,
                    "{}: the api {} {index} of {} orders after {} s; last response: {problem}; \
                     check the workers (`worker health`), or wait longer with --timeout",
                    self.base,
                    self.expected.verb(),
                    uids.len(),
                    self.timeout.as_secs_f64()
                );
                thread::sleep(INTERVAL);
            }
        }
        Ok(uids.len())
    }

    /// Describes the outcome for a person.
    pub(crate) fn describe(&self, count: usize) -> String {
        format!(
            "{}: the api {} {count} orders",
            self.base,
            self.expected.verb()
        )
    }

    /// Requests an order once. The inner error is one that a retry may resolve.
    fn request(&self, uid: &str) -> anyhow::Result<Result<(), String>> {
        #[derive(Deserialize)]
        struct Order {
            order_uid: String,
        }
        let mut request = self.agent.get(format!("{}/order/{uid}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(Err(error.to_string())),
        };
        match response.status().as_u16() {
            410 if self.expected == Expected::Erased => Ok(Ok(())),
            200 if self.expected == Expected::Stored => {
                let body = response.body_mut().read_to_string()?;
                let order: Order = serde_json::from_str(&body)
                    .with_context(|| format!("{}: the response is not an order", self.base))?;
                ensure!(
                    order.order_uid == uid,
                    "{}: expected order {uid}, the api returned another one",
                    self.base
                );
                Ok(Ok(()))
            }
            status @ (401 | 403) => {
                bail!(
                    "{}: the api rejects the request with {status}; check --api-key-file",
                    self.base
                )
            }
            status => Ok(Err(format!("status {status}"))),
        }
    }
}

fn bearer(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let token = read_text(path).map_err(|error| {
        anyhow!("--api-key-file: cannot read {name}: {error}; write the path of a readable file")
    })?;
    let token = token.trim();
    ensure!(
        !token.is_empty(),
        "--api-key-file: {name} is empty; it must hold the token"
    );
    Ok(format!("Bearer {token}"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that gives each of these responses once, in order, one per connection. The thread
    /// returns the request heads.
    fn api(responses: &'static [(u16, &str)]) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let serve = |(status, body): &(u16, &str)| {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(&stream).lines().map(Result::unwrap);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                write!(
                    stream,
                    "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
                head.join("\n")
            };
            responses.iter().map(serve).collect()
        });
        (url, serving)
    }

    fn verify(url: String, timeout: Duration) -> Verify {
        let options = cli::Verify {
            verify: Some(url),
            api_key_file: None,
        };
        Verify::new(&options, Expected::Stored, timeout)
            .unwrap()
            .unwrap()
    }

    fn wait_for(url: String, timeout: Duration) -> anyhow::Result<usize> {
        verify(url, timeout).wait_for(&["a1".to_owned()], &Interrupt::default())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn requests_until_the_api_returns_the_order() {
        let (url, serving) = api(&[(404, "{}"), (503, ""), (200, r#"{"order_uid":"a1"}"#)]);
        wait_for(url, LONG).unwrap();
        let requests = serving.join().unwrap();
        assert_eq!(requests.len(), 3);
        assert!(requests[2].starts_with("GET /order/a1 HTTP/1.1\n"));
    }

    #[test]
    fn timeout_is_an_error_that_names_the_last_status() {
        let (url, serving) = api(&[(404, "{}")]);
        let error = wait_for(url, Duration::ZERO).unwrap_err().to_string();
        assert!(
            error.contains("the api returns 0 of 1 orders after 0 s; last response: status 404; "),
            "{error}"
        );
        serving.join().unwrap();
    }

    #[test]
    fn permanent_errors_are_not_retried() {
        for (responses, expected) in [
            (&[(401, "{}")], "with 401; check --api-key-file"),
            (&[(200, r#"{"order_uid":"b2"}"#)], "returned another one"),
            (&[(200, "<html>")], "is not an order"),
        ] {
            let (url, serving) = api(responses);
            let error = wait_for(url, LONG).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
            serving.join().unwrap();
        }
    }

    #[test]
    fn key_file_may_have_a_byte_order_mark_and_line_ends() {
        let path = std::env::temp_dir().join(format!("api-key-{}", std::process::id()));
        std::fs::write(&path, "\u{feff}t0ken\r\n").unwrap();
        let authorization = bearer(&path);
        std::fs::write(&path, "\n").unwrap();
        let empty = bearer(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(authorization.unwrap(), "Bearer t0ken");
        assert!(empty.unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn requests_carry_the_api_key() {
        let (url, serving) = api(&[(200, r#"{"order_uid":"a1"}"#)]);
        let mut verify = verify(url, LONG);
        verify.authorization = Some("Bearer t0ken".to_owned());
        verify
            .wait_for(&["a1".to_owned()], &Interrupt::default())
            .unwrap();
        let head = serving.join().unwrap().remove(0).to_lowercase();
        assert!(head.contains("authorization: bearer t0ken"), "{head}");
    }

    #[test]
    fn an_erased_order_is_one_with_status_410() {
        let responses = &[(200, r#"{"order_uid":"a1"}"#), (404, "{}"), (410, "{}")];
        let (url, serving) = api(responses);
        let mut verify = verify(url, LONG);
        verify.expected = Expected::Erased;
        let count = verify.wait_for(&["a1".to_owned()], &Interrupt::default());
        assert_eq!(count.unwrap(), 1);
        assert_eq!(serving.join().unwrap().len(), 3);
    }
}
