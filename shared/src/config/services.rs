//! The variables of the services: Postgres, Redis and Kafka.

use std::time::Duration;

use serde::Deserialize;

use super::{
    ConfigError,
    value::{
        brokers, flag, group_id, optional_duration, positive_duration, positive_number, retention,
        sasl_mechanism, security_protocol, session_timeout, topic,
    },
};

/// `DATABASE_*` (worker, api): Postgres.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Database {
    /// `postgres://` URL of the primary database.
    pub url: String,
    /// URL of a read replica for `GET /orders` (api only).
    pub read_url: Option<String>,
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
            read_url: None,
            max_connections: 8,
            timeout: None,
        }
    }
}

/// `REDIS_*` (worker, api): the shared cache.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Redis {
    /// URL of one node, or several URLs separated by commas for a cluster.
    pub url: String,
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
    /// SASL password.
    pub sasl_password: Option<String>,
    /// File or folder with the CA certificates that verify the brokers.
    pub ssl_ca_location: Option<String>,
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
            sasl_password: None,
            ssl_ca_location: None,
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

    /// Checks that the variables for the security of the connection are complete.
    ///
    /// # Errors
    /// Names a variable that `KAFKA_SECURITY_PROTOCOL` requires.
    pub fn check_security(&self) -> Result<(), ConfigError> {
        let protocol = self.security_protocol.as_deref().unwrap_or_default();
        if !protocol.to_ascii_lowercase().starts_with("sasl_") {
            return Ok(());
        }
        let required = [
            ("KAFKA_SASL_MECHANISM", &self.sasl_mechanism),
            ("KAFKA_SASL_USERNAME", &self.sasl_username),
            ("KAFKA_SASL_PASSWORD", &self.sasl_password),
        ];
        match required.into_iter().find(|(_, value)| value.is_none()) {
            None => Ok(()),
            Some((variable, _)) => {
                let problem = format!("required by KAFKA_SECURITY_PROTOCOL={protocol}; set it");
                Err(ConfigError::malformed(variable, problem))
            }
        }
    }

    /// Returns the librdkafka properties that every client needs to connect to the brokers.
    pub fn connection_properties(&self) -> Vec<(&'static str, String)> {
        let mut properties = vec![("bootstrap.servers", self.brokers.clone())];
        let optional = [
            ("security.protocol", &self.security_protocol),
            ("sasl.mechanism", &self.sasl_mechanism),
            ("sasl.username", &self.sasl_username),
            ("sasl.password", &self.sasl_password),
            ("ssl.ca.location", &self.ssl_ca_location),
        ];
        properties.extend(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.clone()?))),
        );
        properties
    }
}
