//! Reads sent orders back from the api. Smoke tests check the whole path from Kafka to a response.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use shared::config::read_text;
use ureq::Agent;

use crate::cli;
use crate::interrupt::Interrupt;

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between two requests for the same order.
const INTERVAL: Duration = Duration::from_millis(100);

/// Client of the api that must return every order.
pub(crate) struct Verify {
    agent: Agent,
    base: String,
    authorization: Option<String>,
    timeout: Duration,
}

impl Verify {
    /// Returns the client that the options describe, or `None` without `--verify`.
    ///
    /// # Errors
    /// If the address is not an `http://` URL, or the key file cannot be read.
    pub(crate) fn new(options: &cli::Verify, timeout: Duration) -> anyhow::Result<Option<Self>> {
        let Some(url) = &options.verify else {
            return Ok(None);
        };
        ensure!(
            url.starts_with("http://"),
            "--verify: \"{url}\" is not an http:// URL; write http://HOST:PORT"
        );
        Ok(Some(Self {
            agent: Agent::config_builder()
                .timeout_global(Some(REQUEST_TIMEOUT))
                .http_status_as_error(false)
                .build()
                .into(),
            base: url.trim_end_matches('/').to_owned(),
            authorization: options.api_key_file.as_ref().map(bearer).transpose()?,
            timeout,
        }))
    }

    /// Requests each order until the api returns it. Returns early, without an error, on an
    /// interrupt.
    ///
    /// # Errors
    /// If an order is not returned in time, the api rejects the API key, or the response is not the
    /// order.
    pub(crate) fn wait_for(&self, uids: &[String], interrupt: &Interrupt) -> anyhow::Result<()> {
        let started = Instant::now();
        for (index, uid) in uids.iter().enumerate() {
            while let Err(problem) = self.request(uid)? {
                if interrupt.exit_code().is_some() {
                    return Ok(());
                }
                ensure!(
                    started.elapsed() < self.timeout,
                    "{}: the api returned {index} of {} orders within {} s; last error: {problem}",
                    self.base,
                    uids.len(),
                    self.timeout.as_secs_f64()
                );
                thread::sleep(INTERVAL);
            }
        }
        println!(
            "{}: returned {} orders after {:.2} s",
            self.base,
            uids.len(),
            started.elapsed().as_secs_f64()
        );
        Ok(())
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
            200 => {
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

fn bearer(path: &PathBuf) -> anyhow::Result<String> {
    let token = read_text(path)
        .with_context(|| format!("--api-key-file: cannot read {}", path.display()))?;
    Ok(format!("Bearer {}", token.trim()))
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
        let url = format!("http://{}/", listener.local_addr().unwrap());
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
        Verify::new(&options, timeout).unwrap().unwrap()
    }

    fn wait_for(url: String, timeout: Duration) -> anyhow::Result<()> {
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
            error.ends_with("returned 0 of 1 orders within 0 s; last error: status 404"),
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
        std::fs::remove_file(&path).unwrap();
        assert_eq!(authorization.unwrap(), "Bearer t0ken");
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
    fn only_http_urls_are_accepted() {
        let options = cli::Verify {
            verify: Some("https://localhost".to_owned()),
            api_key_file: None,
        };
        assert!(Verify::new(&options, LONG).is_err());
    }
}
