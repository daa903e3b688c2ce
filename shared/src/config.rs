//! Configuration from environment variables: one flat struct per prefix, and a default for every
//! field.
//!
//! The structs are flat because envy cannot parse numbers inside `#[serde(flatten)]`. An invalid
//! value stops the start, and the error names the variable. Unknown variables are ignored, because
//! orchestrators add their own.

use std::{env, fs, io, path::Path, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// Variables whose value may also come from a file: `NAME_FILE` holds the path.
const SECRETS: [&str; 5] = [
    "DATABASE_URL",
    "DATABASE_READ_URL",
    "REDIS_URL",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
];

/// An invalid environment variable. The process does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The value has the wrong type or format. The error never quotes the value of a secret.
    #[error("{variable}: {problem}")]
    Malformed {
        /// Name of the environment variable.
        variable: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// The file that a `NAME_FILE` variable points at cannot be read.
    #[error("{variable}: cannot read {path}: {source}")]
    SecretFile {
        /// Name of the environment variable, including `_FILE`.
        variable: String,
        /// Value of the variable: the path of the file.
        path: String,
        /// Why the file could not be read.
        source: std::io::Error,
    },
}

impl ConfigError {
    /// An error about `variable`, for checks that go beyond the type of one value.
    pub fn malformed(variable: &str, problem: impl Into<String>) -> Self {
        Self::Malformed {
            variable: variable.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Reads the struct `T` from the environment variables of the process that begin with `prefix`.
///
/// # Errors
/// If a variable is invalid. The error names the first such variable.
pub fn load<T: DeserializeOwned>(prefix: &str) -> Result<T, ConfigError> {
    load_from(
        prefix,
        env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }),
    )
}

/// Like [`load`], but reads the given variables.
///
/// # Errors
/// If a variable is invalid. The error names the first such variable.
pub fn load_from<T: DeserializeOwned>(
    prefix: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let mut ours = Vec::new();
    for (name, value) in variables {
        if !name.starts_with(prefix) {
            continue;
        }
        match name
            .strip_suffix("_FILE")
            .filter(|secret| SECRETS.contains(secret))
        {
            Some(secret) => ours.push((secret.to_owned(), read_secret(&name, &value)?)),
            None => ours.push((name, value)),
        }
    }
    // Parse each variable alone first, so that the error can name it: envy does not do that for all
    // types. This works because every field has a default.
    for (variable, value) in &ours {
        if let Err(error) =
            envy::prefixed(prefix).from_iter::<_, T>([(variable.clone(), value.clone())])
        {
            return Err(ConfigError::malformed(variable, problem(variable, &error)));
        }
    }
    envy::prefixed(prefix)
        .from_iter(ours)
        .map_err(|error| ConfigError::malformed(prefix, error.to_string()))
}

fn problem(variable: &str, error: &envy::Error) -> String {
    if SECRETS.contains(&variable) {
        return "cannot be read".to_owned();
    }
    match error {
        envy::Error::Custom(text) => text.clone(),
        envy::Error::MissingValue(field) => format!("{field} is missing"),
    }
}

/// Reads a text file and removes the byte order mark that some editors write before UTF-8.
///
/// # Errors
/// If the file cannot be read or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    })
}

fn read_secret(variable: &str, path: &str) -> Result<String, ConfigError> {
    match read_text(path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(source) => Err(ConfigError::SecretFile {
            variable: variable.to_owned(),
            path: path.to_owned(),
            source,
        }),
    }
}

/// `DATABASE_*` (worker, api): Postgres.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Database {
    /// `postgres://` URL of the primary database.
    pub url: String,
    /// URL of a read replica for `GET /orders` (api only).
    pub read_url: Option<String>,
    /// Maximum number of connections per process.
    pub max_connections: u32,
    /// Deadline of one call, including the wait for a connection. The default is
    /// [`Database::WORKER_TIMEOUT`] in the worker and [`Database::API_TIMEOUT`] in the api.
    #[serde(with = "humantime_serde")]
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
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Time to live of an entry. Each write adds up to 10 % of jitter.
    #[serde(with = "humantime_serde")]
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
    pub brokers: String,
    /// Topic from which workers read orders.
    pub topic: String,
    /// Topic for records that cannot be stored.
    pub dead_letter_topic: String,
    /// Consumer group of the workers.
    pub group_id: String,
    /// Whether the worker creates the two topics if they are missing.
    pub create_topics: bool,
    /// Time without a heartbeat after which the group reassigns the partitions of a worker.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// librdkafka's `security.protocol`: `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: Option<String>,
    /// librdkafka's `sasl.mechanism`, such as `SCRAM-SHA-512`.
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

/// `ADMIN_*` (worker, api): the port for health checks and metrics.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub addr: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            addr: "0.0.0.0:8081".to_owned(),
        }
    }
}

/// `LOG_*` (worker, api, producer): the format of the logs.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Log {
    /// `json` (one object per line) or `pretty` (for people). The default is `pretty` on a terminal
    /// and `json` elsewhere.
    pub format: Option<LogFormat>,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Pretty,
}

/// `OTEL_*` (worker, api, producer): traces.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Otel {
    /// Endpoint that receives the spans, such as `http://localhost:4317`. Without it, traces are
    /// off.
    pub exporter_otlp_endpoint: Option<String>,
    /// Name of the service in its spans. The default is the name of the process.
    pub service_name: Option<String>,
}

/// Reads a size such as `8MiB`, or a plain number of bytes.
///
/// # Errors
/// If the text is not a size.
pub fn byte_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    usize::try_from(size.as_u64()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: DeserializeOwned>(
        prefix: &str,
        variables: &[(&str, &str)],
    ) -> Result<T, ConfigError> {
        load_from(
            prefix,
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn reads_durations_numbers_and_flags() {
        let redis: Redis = read(
            "REDIS_",
            &[
                ("REDIS_TIMEOUT", "250ms"),
                ("REDIS_ORDER_TTL", "2h"),
                ("OTHER", "x"),
            ],
        )
        .unwrap();
        assert_eq!(redis.timeout, Duration::from_millis(250));
        assert_eq!(redis.order_ttl, Duration::from_secs(7200));
        let kafka: Kafka = read("KAFKA_", &[("KAFKA_CREATE_TOPICS", "false")]).unwrap();
        assert!(!kafka.create_topics);
        let database: Database = read(
            "DATABASE_",
            &[
                ("DATABASE_MAX_CONNECTIONS", "3"),
                ("DATABASE_TIMEOUT", "1s"),
            ],
        )
        .unwrap();
        assert_eq!(
            (database.max_connections, database.timeout),
            (3, Some(Duration::from_secs(1)))
        );
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        for (prefix, name, value) in [
            ("DATABASE_", "DATABASE_MAX_CONNECTIONS", "many"),
            ("DATABASE_", "DATABASE_TIMEOUT", "5 parsecs"),
            ("LOG_", "LOG_FORMAT", "xml"),
        ] {
            let error = match prefix {
                "LOG_" => read::<Log>(prefix, &[(name, value)]).err(),
                _ => read::<Database>(prefix, &[(name, value)]).err(),
            };
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.starts_with(&format!("{name}: ")), "{text}");
        }
    }

    #[test]
    fn a_secret_comes_from_its_file() {
        let path = env::temp_dir().join(format!("order-service-secret-{}", std::process::id()));
        for (mark, end) in [("", "\n"), ("\u{feff}", "\r\n")] {
            fs::write(&path, format!("{mark}redis://:hidden@cache:6379{end}")).unwrap();
            let file = path.to_str().unwrap();
            let redis: Redis = read("REDIS_", &[("REDIS_URL_FILE", file)]).unwrap();
            assert_eq!(redis.url, "redis://:hidden@cache:6379");
        }
        fs::remove_file(&path).unwrap();
        let missing = read::<Redis>("REDIS_", &[("REDIS_URL_FILE", "/nowhere/at/all")]).err();
        assert!(
            missing
                .is_some_and(|error| error.to_string().starts_with("REDIS_URL_FILE: cannot read"))
        );
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let example = crate::testing::example_variables();
        let kafka: Kafka = load_from("KAFKA_", example.clone()).unwrap();
        let default = Kafka::default();
        assert_eq!(
            (
                kafka.brokers,
                kafka.topic,
                kafka.dead_letter_topic,
                kafka.group_id
            ),
            (
                default.brokers,
                default.topic,
                default.dead_letter_topic,
                default.group_id
            )
        );
        assert_eq!(
            (kafka.create_topics, kafka.session_timeout),
            (default.create_topics, default.session_timeout)
        );
        let (redis, default): (Redis, _) = (
            load_from("REDIS_", example.clone()).unwrap(),
            Redis::default(),
        );
        assert_eq!(
            (redis.url, redis.timeout, redis.order_ttl),
            (default.url, default.timeout, default.order_ttl)
        );
        let (database, default): (Database, _) = (
            load_from("DATABASE_", example.clone()).unwrap(),
            Database::default(),
        );
        assert_eq!(
            (database.url, database.max_connections),
            (default.url, default.max_connections)
        );
        let admin: Admin = load_from("ADMIN_", example).unwrap();
        assert_eq!(admin.addr, Admin::default().addr);
    }
}
