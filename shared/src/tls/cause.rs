//! The cause of a failed handshake, in words.

use std::{error::Error, io, sync::Arc};

use chrono::{DateTime, SecondsFormat};
use rustls::{
    AlertDescription as Alert, CertificateError, Error as TlsError, InvalidMessage,
    pki_types::UnixTime,
};

use super::Names;

/// Returns why a handshake failed and what to check; none if `error` is not about TLS. The text
/// quotes host names and dates of certificates, nothing else.
pub fn cause(error: &(dyn Error + 'static), names: &Names) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<TlsError>() {
            return Some(describe(error, names));
        }
        next = inner(error);
    }
    None
}

/// Returns the error of the operating system or of a socket inside `error`, if there is one.
pub fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = inner(error);
    }
    None
}

/// Returns the error inside `error`. An `io::Error` and an `Arc` pass on the source of the error
/// that they hold, and so skip that error itself.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return io.get_ref().map(|inner| inner as &(dyn Error + 'static));
    }
    match error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(shared) => Some(shared.as_ref()),
        None => error.source(),
    }
}

fn describe(error: &TlsError, names: &Names) -> String {
    let Names {
        address,
        authorities,
        identity,
    } = names;
    match error {
        TlsError::InvalidCertificate(problem) => certificate(problem, names),
        TlsError::AlertReceived(alert) => match alert {
            // With TLS 1.2 a server reports a missing certificate as a failed handshake.
            Alert::CertificateRequired | Alert::NoCertificate | Alert::HandshakeFailure => {
                format!("the server requires a client certificate; set {identity}")
            }
            Alert::CertificateExpired => {
                format!("the server reports an expired client certificate; renew it ({identity})")
            }
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::DecryptError => {
                format!("the server rejects the client certificate ({alert:?}); check {identity}")
            }
            other => format!("the server ended the TLS handshake ({other:?})"),
        },
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("the server does not speak TLS at this port; check {address}")
        }
        TlsError::InconsistentKeys(_) => {
            format!("the key does not fit the client certificate; check {identity}")
        }
        TlsError::NoCertificatesPresented => {
            format!("the server presents no certificate; check {authorities} and the server")
        }
        other => format!("TLS: {other}"),
    }
}

/// Describes what is wrong with the certificate of the server.
fn certificate(problem: &CertificateError, names: &Names) -> String {
    let Names {
        address,
        authorities,
        ..
    } = names;
    match problem {
        // A bad signature is that of another authority with the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "no trusted authority signed the certificate of the server; check {authorities}"
        ),
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the certificate of the server expired at {}; renew it at the server",
            time(*not_after)
        ),
        CertificateError::Expired => {
            "the certificate of the server expired; renew it at the server".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the certificate of the server is not valid before {}; check the clocks",
            time(*not_before)
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            // A rustls name reads `DnsName("localhost")`.
            let presented: Vec<&str> = presented.iter().map(|name| quoted(name)).collect();
            format!(
                "the certificate of the server is valid for {}, not for {}; check the host in \
                 {address}",
                presented.join(", "),
                expected.to_str()
            )
        }
        CertificateError::NotValidForName => format!(
            "the certificate of the server is not valid for its host name; check the host in \
             {address}"
        ),
        other => format!("the certificate of the server is not acceptable: {other:?}"),
    }
}

fn quoted(name: &str) -> &str {
    let inner = name.split_once("(\"").map(|(_, rest)| rest);
    inner
        .and_then(|rest| rest.strip_suffix("\")"))
        .unwrap_or(name)
}

fn time(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_timestamp(seconds, 0).map_or_else(
        || "an unknown time".to_owned(),
        |time| time.to_rfc3339_opts(SecondsFormat::Secs, true),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::ServerName;

    use super::*;
    use crate::tls::REDIS;

    /// Wraps `error` as the clients do: in an error of the connection.
    fn wrapped(error: impl Into<TlsError>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error.into())
    }

    #[test]
    fn each_failure_names_its_cause_and_the_variable() {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
        let cases: [(TlsError, &str); 8] = [
            (
                CertificateError::BadSignature.into(),
                "no trusted authority signed the certificate of the server; check REDIS_CA_FILE",
            ),
            (
                CertificateError::UnknownIssuer.into(),
                "no trusted authority signed the certificate of the server; check REDIS_CA_FILE",
            ),
            (
                CertificateError::ExpiredContext {
                    time: at,
                    not_after: at,
                }
                .into(),
                "the certificate of the server expired at 2023-11-14T22:13:20Z; renew it at the \
                 server",
            ),
            (
                CertificateError::NotValidForNameContext {
                    expected: ServerName::try_from("redis.internal").unwrap(),
                    presented: vec!["DnsName(\"a.internal\")".to_owned(), "odd".to_owned()],
                }
                .into(),
                "the certificate of the server is valid for a.internal, odd, not for \
                 redis.internal; check the host in REDIS_URL",
            ),
            (
                TlsError::AlertReceived(Alert::CertificateRequired),
                "the server requires a client certificate; set REDIS_CERT_FILE and REDIS_KEY_FILE",
            ),
            (
                TlsError::AlertReceived(Alert::CertificateExpired),
                "the server reports an expired client certificate; renew it (REDIS_CERT_FILE and \
                 REDIS_KEY_FILE)",
            ),
            (
                TlsError::AlertReceived(Alert::UnknownCA),
                "the server rejects the client certificate (UnknownCA); check REDIS_CERT_FILE and \
                 REDIS_KEY_FILE",
            ),
            (
                TlsError::InvalidMessage(InvalidMessage::InvalidContentType),
                "the server does not speak TLS at this port; check REDIS_URL",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(cause(&wrapped(error), &REDIS).as_deref(), Some(expected));
        }
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(cause(&refused, &REDIS), None);
    }
}
