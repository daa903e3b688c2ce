//! The variables of the services: Postgres, Redis and Kafka.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    ConfigError,
    value::{
        brokers, flag, group_id, librdkafka_options, optional_duration, positive_duration,
        positive_number, retention, sasl_mechanism, security_protocol, session_timeout, topic,
    },
};

/// `DATABASE_*` (worker, api): Postgres.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Database {
    /// `postgres://` URL of the primary database. Its parameters `sslmode`, `sslrootcert`,
    /// `sslcert` and `sslkey` configure TLS; without `sslmode`, no certificate is verified.
    pub url: String,
    /// File that `url` was read from, if any.
    pub url_file: Option<PathBuf>,
    /// URL of a read replica for `GET /orders` (api only).
    pub read_url: Option<String>,
    /// File that `read_url` was read from, if any.
    pub read_url_file: Option<PathBuf>,
    /// Maximum number of connections per process.
    #[serde(deserialize_with = "positive_number")]
    pub max_connections: u32,
    /// Deadline of one call, including the wait for a connection. The default is
    /// [`Database::WORKER_TIMEOUT`] in the worker and [`Database::API_TIMEOUT`] in the api.
    #[serde(deserialize_with = "optional_duration")]
    pub timeout: Option<Duration>,
}

impl Database {
    /// Default deadline of one call in the worker.
    pub const WORKER_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default deadline of one call in the api.
    pub const API_TIMEOUT: Duration = Duration::from_millis(500);
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: "postgres://postgres:postgres@localhost:5432/orders".to_owned(),
            url_file: None,
            read_url: None,
            read_url_file: None,
            max_connections: 8,
            timeout: None,
        }
    }
}

/// `REDIS_*` (worker, api): the shared cache.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Redis {
    /// URL of one node, or several URLs separated by commas for a cluster. `rediss://` connects
    /// over TLS.
    pub url: String,
    /// File that `url` was read from, if any.
    pub url_file: Option<PathBuf>,
    /// PEM file with the certificate authorities that verify the server, instead of those of the
    /// system. Requires `rediss://`.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate and its chain. Requires `REDIS_KEY_FILE`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of the client certificate, without a password.
    pub key_file: Option<PathBuf>,
    /// Deadline of one command or pipeline.
    #[serde(deserialize_with = "positive_duration")]
    pub timeout: Duration,
    /// Time to live of an entry. Each write adds up to 10 % of jitter.
    #[serde(deserialize_with = "positive_duration")]
    pub order_ttl: Duration,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: "redis://localhost:6379".to_owned(),
            url_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            timeout: Duration::from_millis(100),
            order_ttl: Duration::from_secs(3600),
        }
    }
}

/// `KAFKA_*` (worker, producer): brokers, names and security.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Kafka {
    /// Bootstrap brokers, separated by commas.
    #[serde(deserialize_with = "brokers")]
    pub brokers: String,
    /// Topic of the orders.
    #[serde(deserialize_with = "topic")]
    pub topic: String,
    /// Topic for records that cannot be stored (worker only).
    #[serde(deserialize_with = "topic")]
    pub dead_letter_topic: String,
    /// Consumer group of the workers (worker only).
    #[serde(deserialize_with = "group_id")]
    pub group_id: String,
    /// Whether the worker creates the two topics if they are missing (worker only).
    #[serde(deserialize_with = "flag")]
    pub create_topics: bool,
    /// How long the dead letter topic keeps records, when the worker creates it (worker only).
    #[serde(deserialize_with = "retention")]
    pub dead_letter_retention: Duration,
    /// Time without a heartbeat after which the group reassigns the partitions of a worker (worker
    /// only).
    #[serde(deserialize_with = "session_timeout")]
    pub session_timeout: Duration,
    /// librdkafka's `security.protocol`: `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    #[serde(deserialize_with = "security_protocol")]
    pub security_protocol: Option<String>,
    /// librdkafka's `sasl.mechanism`, such as `SCRAM-SHA-512`.
    #[serde(deserialize_with = "sasl_mechanism")]
    pub sasl_mechanism: Option<String>,
    /// SASL user name.
    pub sasl_username: Option<String>,
    /// File that `sasl_username` was read from, if any.
    pub sasl_username_file: Option<PathBuf>,
    /// SASL password.
    pub sasl_password: Option<String>,
    /// File that `sasl_password` was read from, if any.
    pub sasl_password_file: Option<PathBuf>,
    /// PEM file or folder with the certificate authorities that verify the brokers, instead of
    /// those of the system.
    pub ssl_ca_location: Option<String>,
    /// PEM file with the client certificate and its chain. Requires `KAFKA_SSL_KEY_LOCATION`.
    pub ssl_certificate_location: Option<String>,
    /// PEM file with the key of the client certificate.
    pub ssl_key_location: Option<String>,
    /// Password of the key.
    pub ssl_key_password: Option<String>,
    /// File that `ssl_key_password` was read from, if any.
    pub ssl_key_password_file: Option<PathBuf>,
    /// More properties of librdkafka, such as `client.rack=a,debug=broker`. A property that the
    /// programs set is rejected.
    #[serde(deserialize_with = "librdkafka_options")]
    pub options: Vec<(String, String)>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            topic: "orders".to_owned(),
            dead_letter_topic: "orders-dlq".to_owned(),
            group_id: "order-worker".to_owned(),
            create_topics: true,
            dead_letter_retention: Duration::from_secs(14 * 24 * 3600),
            session_timeout: Duration::from_secs(15),
            security_protocol: None,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_username_file: None,
            sasl_password: None,
            sasl_password_file: None,
            ssl_ca_location: None,
            ssl_certificate_location: None,
            ssl_key_location: None,
            ssl_key_password: None,
            ssl_key_password_file: None,
            options: Vec::new(),
        }
    }
}

impl Kafka {
    /// Checks what no value shows alone, for a program that reads the topic.
    ///
    /// # Errors
    /// Names a variable that contradicts another one, or that another one requires.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.topic == self.dead_letter_topic {
            let problem = format!(
                "{:?} is also KAFKA_TOPIC, and workers would read their own dead letters; write \
                 another name, such as orders-dlq",
                self.topic
            );
            return Err(ConfigError::malformed("KAFKA_DEAD_LETTER_TOPIC", problem));
        }
        self.check_security()
    }

    /// Checks that the variables for the security of the connection are complete and have an
    /// effect.
    ///
    /// # Errors
    /// Names a variable that another one requires, or that has no effect.
    pub fn check_security(&self) -> Result<(), ConfigError> {
        let protocol = self.security_protocol.as_deref().unwrap_or("plaintext");
        let lower_case = protocol.to_ascii_lowercase();
        let mut required = Vec::new();
        if lower_case.starts_with("sasl_") {
            let cause = format!("KAFKA_SECURITY_PROTOCOL={protocol}");
            required.extend([
                ("KAFKA_SASL_MECHANISM", &self.sasl_mechanism, cause.clone()),
                ("KAFKA_SASL_USERNAME", &self.sasl_username, cause.clone()),
                ("KAFKA_SASL_PASSWORD", &self.sasl_password, cause),
            ]);
        }
        let (certificate, key) = (&self.ssl_certificate_location, &self.ssl_key_location);
        if certificate.is_some() {
            let cause = "KAFKA_SSL_CERTIFICATE_LOCATION".to_owned();
            required.push(("KAFKA_SSL_KEY_LOCATION", key, cause));
        }
        if key.is_some() {
            let cause = "KAFKA_SSL_KEY_LOCATION".to_owned();
            required.push(("KAFKA_SSL_CERTIFICATE_LOCATION", certificate, cause));
        }
        if let Some((variable, _, cause)) = required.iter().find(|(_, value, _)| value.is_none()) {
            let problem = format!("required by {cause}; set it");
            return Err(ConfigError::malformed(variable, problem));
        }
        let of_tls = [
            ("KAFKA_SSL_CA_LOCATION", &self.ssl_ca_location),
            ("KAFKA_SSL_CERTIFICATE_LOCATION", certificate),
        ];
        match of_tls.into_iter().find(|(_, value)| value.is_some()) {
            Some((variable, _)) if !lower_case.ends_with("ssl") => {
                let problem = format!(
                    "has no effect with KAFKA_SECURITY_PROTOCOL={protocol}; set that to ssl or \
                     sasl_ssl, or unset this"
                );
                Err(ConfigError::malformed(variable, problem))
            }
            _ => Ok(()),
        }
    }
}
