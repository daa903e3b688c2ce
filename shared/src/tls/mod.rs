//! TLS between the parts: checks certificate files before the first connection, and explains failed
//! handshakes.
//!
//! The clients of Postgres and Redis read the files themselves, at each new connection, but report
//! neither the variable nor, in the case of Redis, the cause.

mod cause;
mod files;

pub use cause::{cause, io_error};
pub use files::{File, Identity, authorities, check};

/// The variables that configure TLS towards one service, for error messages.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Where the address of the service is.
    pub address: &'static str,
    /// Where the certificate authorities are.
    pub authorities: &'static str,
    /// Where the client certificate and its key are.
    pub identity: &'static str,
}

/// The variables of Redis.
pub const REDIS: Names = Names {
    address: "REDIS_URL",
    authorities: "REDIS_CA_FILE",
    identity: "REDIS_CERT_FILE and REDIS_KEY_FILE",
};

/// The parameters of the URLs of Postgres.
pub const POSTGRES: Names = Names {
    address: "DATABASE_URL",
    authorities: "sslrootcert in DATABASE_URL",
    identity: "sslcert and sslkey in DATABASE_URL",
};

/// The variables of Kafka.
pub const KAFKA: Names = Names {
    address: "KAFKA_BROKERS",
    authorities: "KAFKA_SSL_CA_LOCATION",
    identity: "KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION",
};
