//! HTTP client.

use std::time::Duration;

use serde_json::Value;

/// Timeout of a request. Longer than any limit that the programs promise.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(held, _)| held.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// Returns the tier that answered a lookup. Asserts that the response also states the duration.
    #[track_caller]
    pub fn source(&self) -> &str {
        let duration = self.header("X-Duration-Ms").expect("X-Duration-Ms");
        assert!(
            duration.parse::<f64>().is_ok_and(|ms| ms >= 0.0),
            "{duration}"
        );
        self.header("X-Source").expect("X-Source")
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts that the response is a problem (RFC 9457) with that status. Returns its stable code.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header("Content-Type"),
            Some("application/problem+json")
        );
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        let code = problem["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {problem}"));
        code.to_owned()
    }
}

/// A client that keeps connections open.
pub struct Http(ureq::Agent);

impl Http {
    /// A new client without connections.
    pub fn new() -> Self {
        Self(
            ureq::Agent::config_builder()
                .proxy(None)
                .timeout_global(Some(TIMEOUT))
                .http_status_as_error(false)
                .build()
                .into(),
        )
    }

    /// Sends GET with headers.
    ///
    /// # Errors
    /// No complete response arrived.
    pub fn try_get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Answer, ureq::Error> {
        let request = headers
            .iter()
            .fold(self.0.get(url), |request, (name, value)| {
                request.header(*name, *value)
            });
        let mut response = request.call()?;
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.as_str().to_owned(), value)
            })
            .collect();
        Ok(Answer {
            status: response.status().as_u16(),
            headers,
            body: response.body_mut().read_to_vec()?,
        })
    }

    /// Sends GET.
    ///
    /// # Panics
    /// No complete response arrived.
    #[track_caller]
    pub fn get(&self, url: &str) -> Answer {
        self.get_with(url, &[])
    }

    /// Sends GET with headers.
    ///
    /// # Panics
    /// No complete response arrived.
    #[track_caller]
    pub fn get_with(&self, url: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_get(url, headers)
            .unwrap_or_else(|error| panic!("{url}: {error}"))
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}
