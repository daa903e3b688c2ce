//! Explains a failed TLS handshake with a broker. librdkafka reports only that a certificate could
//! not be verified, whether it has another issuer, has expired, or is valid for another name.
//!
//! So our own TLS client tries the same handshake, and reports its cause.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, Stream,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::{
    config::Kafka,
    tls::{self, File, KAFKA},
};

/// Time limit of each step.
const LIMIT: Duration = Duration::from_secs(2);

/// Returns the address of the broker in a reason of librdkafka, such as
/// `ssl://host:9093/bootstrap: SSL handshake failed: …`.
pub fn broker_in(reason: &str) -> Option<&str> {
    let (_, rest) = reason.split_once("ssl://")?;
    let address = rest.split(['/', ' ']).next()?;
    address
        .contains(':')
        .then_some(address.trim_end_matches(':'))
}

/// Tries a TLS handshake with the broker at `address`, `HOST:PORT`. Returns why it fails; none if
/// it succeeds or the broker cannot be reached. Blocks for some seconds at most.
pub fn handshake_problem(config: &Kafka, address: &str) -> Option<String> {
    let failed = handshake(config, address).err()?;
    let cause = tls::cause(&failed, &KAFKA)?;
    // Java reports a missing certificate as a bad one.
    let is_missing = config.ssl_certificate_location.is_none() && cause.contains("BadCertificate");
    match is_missing {
        true => Some(format!(
            "the server requires a client certificate; set {}",
            KAFKA.identity
        )),
        false => Some(cause),
    }
}

fn handshake(config: &Kafka, address: &str) -> io::Result<()> {
    let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(io::Error::other)?;
    let roots = roots(config.ssl_ca_location.as_deref().map(Path::new));
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let settings = match identity(config) {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(io::Error::other)?,
        None => builder.with_no_client_auth(),
    };
    let connection = ClientConnection::new(Arc::new(settings), name);
    let mut connection = connection.map_err(io::Error::other)?;
    let address = address
        .to_socket_addrs()?
        .next()
        .ok_or(io::ErrorKind::NotFound)?;
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    let mut stream = Stream::new(&mut connection, &mut socket);
    stream.flush()?;
    // With TLS 1.3, a server rejects a client certificate only after our side of the handshake.
    // A broker sends nothing of its own, so the read ends with that rejection or at the limit.
    match stream.read(&mut [0; 1]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        answer => answer.map(drop),
    }
}

/// Returns the client certificate and its key. None if there are none, or OpenSSL alone can read
/// them, such as a key with a password.
fn identity(config: &Kafka) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificate = config.ssl_certificate_location.as_ref()?;
    let key = config.ssl_key_location.as_ref()?;
    let chain = CertificateDer::pem_file_iter(certificate).ok()?;
    let chain = chain.collect::<Result<Vec<_>, _>>().ok()?;
    Some((chain, PrivateKeyDer::from_pem_file(key).ok()?))
}

/// Returns the authorities of a file, of the files in a folder, or of the system.
fn roots(location: Option<&Path>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let Some(location) = location else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return roots;
    };
    let files: Vec<PathBuf> = match std::fs::read_dir(location) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![location.to_owned()],
    };
    for file in files {
        // librdkafka has read the location at the start, so an error needs no report here.
        if let Ok(found) = tls::authorities(&File::of("KAFKA_SSL_CA_LOCATION", &file)) {
            roots.extend(found.roots);
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_read_from_the_reason() {
        for (reason, expected) in [
            (
                "ssl://kafka.internal:9093/bootstrap: SSL handshake failed: error:0A000086",
                Some("kafka.internal:9093"),
            ),
            ("sasl_ssl://[::1]:9093/1: x", Some("[::1]:9093")),
            ("ssl://a:9093: x", Some("a:9093")),
            ("ssl://a", None),
            ("127.0.0.1:9092/1: Connect failed", None),
        ] {
            assert_eq!(broker_in(reason), expected, "{reason}");
        }
    }
}
