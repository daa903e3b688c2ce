//! GET over HTTPS, for the documents of the issuer.

use std::{io, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http1,
    http::{
        StatusCode,
        header::{ACCEPT, CACHE_CONTROL, HOST, HeaderMap, USER_AGENT},
        uri::Scheme,
    },
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Maximum time of one request, from the name lookup to the end of the document.
const DEADLINE: Duration = Duration::from_secs(5);

/// Maximum bytes of a document. The greatest ones of public issuers have some 20 kB.
const MAX_BYTES: usize = 256 * 1024;

const AGENT: &str = concat!("order-service-api/", env!("CARGO_PKG_VERSION"));

/// A document, and how long it may be kept.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) body: Bytes,
    /// `max-age`; zero for a document that is not to be kept.
    pub(super) max_age: Option<Duration>,
}

/// Reason why there is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot read API_OIDC_CA_FILE: {0}; write the path of a PEM file with certificates")]
    Roots(String),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS failed: {0}; a private certificate authority needs API_OIDC_CA_FILE")]
    Tls(io::Error),
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
    /// Redirects are not followed: the address is what the operator, or the issuer itself, names.
    #[error("status {0}; expected 200")]
    Status(StatusCode),
    #[error("more than {} bytes", MAX_BYTES)]
    TooLarge,
    #[error("cannot read the body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {:?}", DEADLINE)]
    Timeout,
}

/// A client without state. Connections are not kept: there are two requests in some minutes.
#[derive(Debug)]
pub(super) struct Client {
    /// PEM file with the certificates to trust, instead of those of the system.
    pub(super) ca_file: Option<PathBuf>,
}

impl Client {
    /// Requests the document at `url`, which has a host. Cancel-safe.
    ///
    /// # Errors
    /// Returns an error if the status is not 200, or the complete document does not arrive within
    /// [`DEADLINE`].
    pub(super) async fn get(&self, url: &Uri) -> Result<Document, FetchError> {
        let answer = timeout(DEADLINE, self.exchange(url)).await;
        answer.map_err(|_| FetchError::Timeout)?
    }

    async fn exchange(&self, url: &Uri) -> Result<Document, FetchError> {
        let host = url.host().unwrap_or_default();
        // A URL has brackets around an IPv6 address.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_tls = url.scheme() == Some(&Scheme::HTTPS);
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let connected = TcpStream::connect((host, port)).await;
        let stream = connected.map_err(FetchError::Connect)?;
        if !is_tls {
            return request(stream, url).await;
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| FetchError::Tls(io::Error::other(error)))?;
        let connector = TlsConnector::from(Arc::new(self.tls().await?));
        let stream = connector.connect(name, stream).await;
        request(stream.map_err(FetchError::Tls)?, url).await
    }

    /// Reads the certificates anew, so that replaced ones apply without a restart.
    async fn tls(&self) -> Result<ClientConfig, FetchError> {
        let file = self.ca_file.clone();
        let roots = spawn_blocking(move || match file {
            Some(file) => roots_of_file(&file.to_string_lossy()),
            None => Ok(roots_of_system()),
        });
        let roots = roots.await.unwrap_or_else(|error| Err(error.to_string()));
        let roots = roots.map_err(FetchError::Roots)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| FetchError::Tls(io::Error::other(error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn roots_of_file(path: &str) -> Result<RootCertStore, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{path}: {error}"));
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(certificates?);
    match (added, ignored) {
        (1.., 0) => Ok(roots),
        (0, 0) => Err(format!("{path}: no certificate")),
        (_, _) => Err(format!("{path}: a certificate is malformed")),
    }
}

/// The certificates of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others), or those of
/// Mozilla where the system has none.
fn roots_of_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Sends the request over `stream` and reads the response.
async fn request<S>(stream: S, url: &Uri) -> Result<Document, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let host = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(target)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Body(error.into()))?;
    let mut answer = pin!(async move { read(sender.send_request(request).await?).await });
    // The answer makes progress only while the connection does.
    tokio::select! {
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    // The server has closed the connection. What it sent before is still to be read.
    answer.await
}

async fn read(response: Response<Incoming>) -> Result<Document, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let max_age = max_age(response.headers());
    let body = Limited::new(response.into_body(), MAX_BYTES);
    let body = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            FetchError::TooLarge
        } else {
            FetchError::Body(error)
        }
    })?;
    Ok(Document {
        body: body.to_bytes(),
        max_age,
    })
}

/// Reads `Cache-Control`.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let mut age = None;
    for directive in values.flat_map(|value| value.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            age = seconds.parse().ok().map(Duration::from_secs);
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use hyper::http::HeaderValue;

    use super::*;

    #[test]
    fn the_age_is_that_of_cache_control() {
        for (value, age) in [
            ("max-age=300", Some(300)),
            ("public, Max-Age=21600, must-revalidate", Some(21_600)),
            ("max-age=300, no-store", Some(0)),
            ("no-cache", Some(0)),
            ("s-maxage=9", None),
            ("max-age=soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
            assert_eq!(max_age(&headers), age.map(Duration::from_secs), "{value}");
        }
        assert_eq!(max_age(&HeaderMap::new()), None);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let path = std::env::temp_dir().join(format!("oidc-ca-{}", std::process::id()));
        std::fs::write(&path, "no certificate\n").unwrap();
        let empty = roots_of_file(&path.to_string_lossy()).map(|_| ());
        std::fs::remove_file(&path).unwrap();
        assert!(empty.unwrap_err().ends_with(": no certificate"));
        let missing = roots_of_file("/nowhere/ca.pem").map(|_| ());
        assert!(missing.unwrap_err().starts_with("/nowhere/ca.pem: "));
    }
}
