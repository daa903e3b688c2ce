//! The documents of the issuer: its metadata (OpenID Connect Discovery 1.0) and its keys.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use hyper::{
    Uri,
    http::uri::{PathAndQuery, Scheme},
};
use serde::Deserialize;
use shared::config::ConfigError;

use super::{
    https::{Client, Document},
    jwks::KeyDocument,
};

/// The variable that names the issuer.
pub(super) const VARIABLE: &str = "API_OIDC_ISSUER";

/// Where the metadata are, below the path of the issuer.
const METADATA: &str = "/.well-known/openid-configuration";

/// What the issuer must be.
const EXPECTED: &str = "an https:// URL without query; write it exactly as the issuer does in \
                        `iss`, such as https://login.example.com/realms/shop";

/// Shortest and longest time between two scheduled refreshes. `Cache-Control` of the keys decides
/// within these bounds. A key that the issuer removes stays valid here for at most the longest one.
const LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5 * 60)..=Duration::from_secs(15 * 60);

/// Time between two scheduled refreshes if the issuer states none.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The keys of the issuer, and when to fetch them again.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: KeyDocument,
    pub(super) lifetime: Duration,
}

/// The issuer of the tokens.
#[derive(Debug)]
pub(super) struct Issuer {
    name: String,
    metadata: Uri,
    client: Client,
}

/// Members of the metadata that the api needs.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    /// Creates a client of the issuer. `ca_file` holds the certificates to trust, instead of those
    /// of the system.
    ///
    /// # Errors
    /// Returns an error if `name` is not a URL from which keys may be fetched.
    pub(super) fn new(name: &str, ca_file: Option<PathBuf>) -> Result<Self, ConfigError> {
        let is_plain = !name.contains(['?', '#', '@']);
        let url = name
            .parse()
            .ok()
            .filter(|url| is_plain && is_safe(url, url));
        let metadata = url.and_then(|url: Uri| {
            let path = format!("{}{METADATA}", url.path().trim_end_matches('/'));
            let mut parts = url.into_parts();
            parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
            Uri::from_parts(parts).ok()
        });
        Ok(Self {
            metadata: metadata.ok_or_else(|| ConfigError::not(VARIABLE, name, EXPECTED))?,
            name: name.to_owned(),
            client: Client { ca_file },
        })
    }

    /// The name of the issuer, as tokens have it in `iss`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Fetches the keys. Reads the metadata each time, because the address of the keys may change.
    ///
    /// # Errors
    /// Returns which document is missing or unusable, and why.
    pub(super) async fn fetch(&self) -> Result<Fetched, String> {
        let document = self.get(&self.metadata).await?;
        let keys = keys_address(&self.name, &self.metadata, &document.body)?;
        let document = self.get(&keys).await?;
        let parsed = KeyDocument::parse(&document.body).map_err(|error| in_url(&keys, error))?;
        Ok(Fetched {
            keys: parsed,
            lifetime: lifetime(document.max_age),
        })
    }

    async fn get(&self, url: &Uri) -> Result<Document, String> {
        let answer = self.client.get(url).await;
        answer.map_err(|error| in_url(url, error.to_string()))
    }
}

fn in_url(url: &Uri, problem: String) -> String {
    format!("{url}: {problem}")
}

/// Returns the address of the keys according to the metadata.
fn keys_address(issuer: &str, from: &Uri, metadata: &[u8]) -> Result<Uri, String> {
    let Ok(metadata) = serde_json::from_slice::<Metadata>(metadata) else {
        let problem = "not the metadata of an issuer; expected JSON with issuer and jwks_uri";
        return Err(in_url(from, problem.to_owned()));
    };
    // Otherwise one issuer could publish keys for the tokens of another one.
    if metadata.issuer != issuer {
        let found = &metadata.issuer;
        let problem = format!("names issuer {found:?}; expected {issuer:?}, as in {VARIABLE}");
        return Err(in_url(from, problem));
    }
    let keys: Option<Uri> = metadata.jwks_uri.parse().ok();
    keys.filter(|keys| is_safe(keys, from)).ok_or_else(|| {
        let found = &metadata.jwks_uri;
        in_url(
            from,
            format!("jwks_uri is {found:?}; expected an https:// URL"),
        )
    })
}

/// Returns whether keys from `url` can be trusted: it is encrypted, or both it and the issuer at
/// `issuer` are on this machine.
fn is_safe(url: &Uri, issuer: &Uri) -> bool {
    let has_user = url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    let is_encrypted = url.scheme() == Some(&Scheme::HTTPS) && url.host().is_some();
    let is_local = |url: &Uri| url.scheme() == Some(&Scheme::HTTP) && is_loopback(url);
    !has_user && (is_encrypted || is_local(url) && is_local(issuer))
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Returns the time until the next scheduled refresh.
fn lifetime(max_age: Option<Duration>) -> Duration {
    let lifetime = max_age.unwrap_or(DEFAULT_LIFETIME);
    let (shortest, longest) = (*LIFETIMES.start(), *LIFETIMES.end());
    lifetime.clamp(shortest, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_are_below_the_issuer() {
        for (issuer, metadata) in [
            (
                "https://login.example.com",
                "https://login.example.com/.well-known/openid-configuration",
            ),
            (
                "https://tenant.example.com/",
                "https://tenant.example.com/.well-known/openid-configuration",
            ),
            (
                "https://id.example.com:8443/realms/shop",
                "https://id.example.com:8443/realms/shop/.well-known/openid-configuration",
            ),
            (
                "http://[::1]:8080/a/",
                "http://[::1]:8080/a/.well-known/openid-configuration",
            ),
        ] {
            let made = Issuer::new(issuer, None).unwrap();
            assert_eq!(made.metadata.to_string(), metadata);
            assert_eq!(made.name(), issuer);
        }
    }

    #[test]
    fn an_issuer_is_encrypted_or_local() {
        for local in [
            "http://localhost:1",
            "http://127.0.0.1",
            "http://127.1.2.3:9/a",
        ] {
            assert!(Issuer::new(local, None).is_ok(), "{local}");
        }
        for other in [
            "",
            "issuer",
            "issuer.example.com",
            "/realms/shop",
            "http://issuer.example.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "ftp://issuer.example.com",
            "https://",
            "https://user@issuer.example.com",
            "https://issuer.example.com?tenant=1",
            "https://issuer.example.com#fragment",
        ] {
            let error = Issuer::new(other, None).unwrap_err().to_string();
            assert!(error.starts_with("API_OIDC_ISSUER: "), "{error}");
            assert!(
                error.contains("write it exactly as the issuer does"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_metadata_name_the_issuer_and_safe_keys() {
        let (name, from) = ("https://a.example", Uri::from_static("https://a.example/x"));
        let address = |json: &str| keys_address(name, &from, json.as_bytes());
        // Google has its keys on another host.
        let good = r#"{"issuer":"https://a.example","jwks_uri":"https://keys.example/certs"}"#;
        assert_eq!(address(good).unwrap(), "https://keys.example/certs");
        for (json, problem) in [
            ("{}", "not the metadata"),
            ("<html>", "not the metadata"),
            (
                r#"{"issuer":"https://b.example","jwks_uri":"https://a.example/k"}"#,
                r#"names issuer "https://b.example"; expected "https://a.example""#,
            ),
            (
                r#"{"issuer":"https://a.example","jwks_uri":"http://a.example/k"}"#,
                "expected an https:// URL",
            ),
            (
                r#"{"issuer":"https://a.example","jwks_uri":"http://127.0.0.1/k"}"#,
                "expected an https:// URL",
            ),
            (
                r#"{"issuer":"https://a.example","jwks_uri":"file:///etc/passwd"}"#,
                "expected an https:// URL",
            ),
        ] {
            let error = address(json).unwrap_err();
            assert!(error.starts_with("https://a.example/x: "), "{error}");
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn the_lifetime_is_between_five_and_fifteen_minutes() {
        for (max_age, minutes) in [(None, 10), (Some(0), 5), (Some(420), 7), (Some(21_600), 15)] {
            let max_age = max_age.map(Duration::from_secs);
            assert_eq!(lifetime(max_age), Duration::from_secs(minutes * 60));
        }
    }
}
