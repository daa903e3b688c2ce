//! Configuration from environment variables: one flat struct per prefix, and a default for every
//! field.
//!
//! The structs are flat because envy cannot parse numbers inside `#[serde(flatten)]`. An invalid
//! value stops the start, and the error names the variable. Unknown variables are ignored, because
//! orchestrators add their own.

mod load;
mod value;
mod variable;

use std::time::Duration;

use serde::Deserialize;

pub use load::{ConfigError, load, load_from, read_text};
pub(crate) use value::{DURATION, whole_number};
pub use value::{
    byte_size, duration, flag, number, optional_duration, positive_byte_size, positive_number,
};
pub use variable::{Variable, variables};

/// Variables whose value may also come from a file: `NAME_FILE` holds the path.
const SECRETS: [&str; 5] = [
    "DATABASE_URL",
    "DATABASE_READ_URL",
    "REDIS_URL",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
];

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
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Time to live of an entry. Each write adds up to 10 % of jitter.
    #[serde(deserialize_with = "duration")]
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
    /// Topic of the orders.
    pub topic: String,
    /// Topic for records that cannot be stored (worker only).
    pub dead_letter_topic: String,
    /// Consumer group of the workers (worker only).
    pub group_id: String,
    /// Whether the worker creates the two topics if they are missing (worker only).
    #[serde(deserialize_with = "flag")]
    pub create_topics: bool,
    /// Time without a heartbeat after which the group reassigns the partitions of a worker (worker
    /// only).
    #[serde(deserialize_with = "duration")]
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
    #[serde(deserialize_with = "value::log_format")]
    pub format: Option<LogFormat>,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use serde::de::DeserializeOwned;

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

    /// Returns the error for one variable of `T`.
    fn error<T: DeserializeOwned>(prefix: &str, name: &str, value: &str) -> String {
        match read::<T>(prefix, &[(name, value)]) {
            Ok(_) => panic!("{name}={value} is accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_error_has_the_variable_the_value_and_what_to_write() {
        for (found, expected) in [
            (
                error::<Redis>("REDIS_", "REDIS_TIMEOUT", "5"),
                r#"REDIS_TIMEOUT: "5" is not a duration; write 5s or 250ms"#,
            ),
            (
                error::<Redis>("REDIS_", "REDIS_TIMEOUT", ""),
                r#"REDIS_TIMEOUT: "" is not a duration; write 5s or 250ms"#,
            ),
            (
                error::<Database>("DATABASE_", "DATABASE_TIMEOUT", "5 parsecs"),
                r#"DATABASE_TIMEOUT: "5 parsecs" is not a duration; write 5s or 250ms"#,
            ),
            (
                error::<Database>("DATABASE_", "DATABASE_MAX_CONNECTIONS", "0"),
                "DATABASE_MAX_CONNECTIONS: \"0\" is not a whole number from 1 to 4294967295; \
                 write digits only",
            ),
            (
                error::<Kafka>("KAFKA_", "KAFKA_CREATE_TOPICS", "yes"),
                r#"KAFKA_CREATE_TOPICS: "yes" is not a flag; write true or false"#,
            ),
            (
                error::<Log>("LOG_", "LOG_FORMAT", "xml"),
                r#"LOG_FORMAT: "xml" is not a log format; write json or pretty"#,
            ),
            (
                error::<Redis>("REDIS_", "REDIS_URL_FILE", "/nowhere/at/all"),
                "REDIS_URL_FILE: cannot read /nowhere/at/all: No such file or directory (os error \
                 2); write the path of a readable file",
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_secret_is_set_by_its_value_or_by_a_file_and_never_quoted() {
        let path = env::temp_dir().join(format!("order-service-twice-{}", std::process::id()));
        fs::write(&path, "redis://:hidden@file").unwrap();
        let file = path.to_str().unwrap();
        let (value, file) = (
            ("REDIS_URL", "redis://:hidden@value"),
            ("REDIS_URL_FILE", file),
        );
        for variables in [[value, file], [file, value]] {
            let error = read::<Redis>("REDIS_", &variables).err().unwrap();
            assert_eq!(
                error.to_string(),
                "REDIS_URL: set by REDIS_URL and by REDIS_URL_FILE; unset one of them"
            );
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn unknown_variables_are_ignored() {
        let variables = [("REDIS_PORT", "tcp://10.0.0.1:6379"), ("REDISTIMEOUT", "x")];
        let redis: Redis = read("REDIS_", &variables).unwrap();
        assert_eq!(redis.url, Redis::default().url);
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
