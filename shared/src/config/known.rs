//! Rejects a variable that has one of our prefixes and that no program reads. It is most likely
//! misspelt, and the default would apply instead.
//!
//! All programs check all prefixes, because compose and operators give them one environment. The
//! names come from the structs that read the variables, not from a second list.

use std::sync::LazyLock;

use serde::{
    Deserializer,
    de::{DeserializeOwned, Error as _, Visitor, value::Error},
    forward_to_deserialize_any,
};

use super::{
    Admin, Api, Cache, ConfigError, Database, Kafka, LocalCache, Log, NegativeCache, Otel, Redis,
    SECRETS, Worker,
};

/// What `NAME_FILE` adds to the name of a secret.
pub(super) const FILE: &str = "_FILE";

/// Prefix of the variables of OpenTelemetry, most of which its SDK reads.
const OTEL: &str = "OTEL_";

/// Number of typing errors up to which a variable of [`OTEL`] counts as one of ours misspelt. Every
/// other variable of OpenTelemetry differs more.
const TYPING_ERRORS: usize = 2;

/// Variables with our prefixes that `docker-compose.yml` reads. Compose passes the whole `.env` to
/// our programs.
pub const COMPOSE: [&str; 5] = [
    "KAFKA_PORT",
    "KAFKA_UI_PORT",
    "REDIS_MAXMEMORY",
    "REDIS_PASSWORD",
    "REDIS_PORT",
];

/// Variables that Kafka's own tools read or that Kafka's image sets. They are in the environment of
/// people who run both.
const KAFKA_TOOLS: [&str; 9] = [
    "KAFKA_DEBUG",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_OPTS",
    "KAFKA_VERSION",
];

/// The variables of one struct.
struct Section {
    prefix: &'static str,
    variables: Vec<String>,
}

impl Section {
    fn of<T: DeserializeOwned>(prefix: &'static str) -> Self {
        let names = fields::<T>().iter();
        let variables = names.map(|name| format!("{prefix}{}", name.to_uppercase()));
        Self {
            prefix,
            variables: variables.collect(),
        }
    }
}

/// Every struct that reads variables, by its prefix.
static SECTIONS: LazyLock<[Section; 11]> = LazyLock::new(|| {
    [
        Section::of::<Database>("DATABASE_"),
        Section::of::<Redis>("REDIS_"),
        Section::of::<Kafka>("KAFKA_"),
        Section::of::<Admin>("ADMIN_"),
        Section::of::<Log>("LOG_"),
        Section::of::<Otel>(OTEL),
        Section::of::<Worker>("WORKER_"),
        Section::of::<Api>("API_"),
        Section::of::<Cache>("CACHE_"),
        Section::of::<LocalCache>("LOCAL_CACHE_"),
        Section::of::<NegativeCache>("NEGATIVE_CACHE_"),
    ]
});

/// Returns the names of the fields of the struct `T`. Serde passes them to the deserializer.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(Error::custom("holds no values"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    // Always an error: there are no values.
    let _ = T::deserialize(Names(&mut names));
    names
}

/// Returns every variable that a program reads, without the `NAME_FILE` of secrets and `RUST_LOG`.
pub fn names() -> impl Iterator<Item = &'static str> {
    let all = SECTIONS.iter().flat_map(|section| &section.variables);
    all.map(String::as_str)
        .filter(|name| secret_of(name).is_none())
}

/// Returns the secret whose file the variable `name` names; none for another variable.
pub(super) fn secret_of(name: &str) -> Option<&str> {
    let secret = name.strip_suffix(FILE);
    secret.filter(|secret| SECRETS.contains(secret))
}

/// Returns whether a variable of this name must be one that a program reads.
pub(super) fn is_ours(name: &str) -> bool {
    SECTIONS
        .iter()
        .any(|section| name.starts_with(section.prefix))
}

/// Checks the name of a variable.
///
/// # Errors
/// If it has one of our prefixes, and no program reads it.
pub(super) fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    if !is_ours(name) || names().any(|known| known == name) {
        return Ok(());
    }
    if secret_of(name).is_some() {
        return Ok(());
    }
    if let Some(named) = name.strip_suffix(FILE)
        && let Some(variable) = names().find(|known| *known == named)
    {
        let problem =
            format!("only a secret can come from a file; set {variable} to the value itself");
        return Err(ConfigError::malformed(name, problem));
    }
    if COMPOSE.contains(&name) || KAFKA_TOOLS.contains(&name) || is_service_link(name, value) {
        return Ok(());
    }
    let (nearest, distance) = nearest(name);
    if name.starts_with(OTEL) && distance > TYPING_ERRORS {
        return Ok(());
    }
    Err(ConfigError::Unknown {
        variable: name.to_owned(),
        nearest,
    })
}

/// Returns the most similar name that a variable may have, and by how many typing errors it
/// differs, regardless of case. It is one with the same prefix: a short name resembles every other
/// short one.
fn nearest(name: &str) -> (String, usize) {
    let capitals = name.to_ascii_uppercase();
    let files = SECRETS.iter().map(|secret| format!("{secret}{FILE}"));
    names()
        .map(str::to_owned)
        .chain(files)
        .filter(|known| prefix(known) == prefix(name))
        .map(|known| (strsim::damerau_levenshtein(&capitals, &known), known))
        .min()
        .map(|(distance, known)| (known, distance))
        .unwrap_or_default()
}

/// Returns the prefix of a variable of ours.
fn prefix(name: &str) -> Option<&'static str> {
    let mut sections = SECTIONS.iter();
    let section = sections.find(|section| name.starts_with(section.prefix));
    section.map(|section| section.prefix)
}

/// Returns whether Kubernetes or Docker derived the variable from the name of a service, such as
/// `redis`: `REDIS_SERVICE_HOST`, `REDIS_SERVICE_PORT_MAIN`, `REDIS_PORT=tcp://10.0.0.1:6379`,
/// `REDIS_PORT_6379_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_address)
        || name.split("_PORT_").skip(1).any(is_port_of_link)
}

/// Returns whether the text is `6379_TCP`, or such a name with `_PROTO`, `_PORT` or `_ADDR`.
fn is_port_of_link(text: &str) -> bool {
    let mut parts = text.split('_');
    let is_number = |part: &str| part.parse::<u16>().is_ok();
    parts.next().is_some_and(is_number)
        && parts
            .next()
            .is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
        && parts
            .next()
            .is_none_or(|kind| ["PROTO", "PORT", "ADDR"].contains(&kind))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_struct_has_its_variables() {
        for section in SECTIONS.iter() {
            assert!(!section.variables.is_empty(), "{}", section.prefix);
        }
        for name in [
            "DATABASE_URL",
            "KAFKA_SSL_CA_LOCATION",
            "NEGATIVE_CACHE_TTL",
        ] {
            assert!(names().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_names_the_nearest_one() {
        for (name, nearest) in [
            ("REDIS_TIMOEUT", "REDIS_TIMEOUT"),
            ("REDIS_TTL", "REDIS_URL"),
            ("REDIS_URL_FIEL", "REDIS_URL_FILE"),
            ("DATABASE_MAX_CONECTIONS", "DATABASE_MAX_CONNECTIONS"),
            ("KAFKA_BROKER", "KAFKA_BROKERS"),
            ("WORKER_BATCHSIZE", "WORKER_BATCH_SIZE"),
            ("API_PORT", "API_ADDR"),
            ("CACHE_ENABLE", "CACHE_ENABLED"),
            ("LOCAL_CACHE_TLT", "LOCAL_CACHE_TTL"),
            ("NEGATIVE_CACHE_TT", "NEGATIVE_CACHE_TTL"),
            ("ADMIN_ADRR", "ADMIN_ADDR"),
            ("LOG_FORMATT", "LOG_FORMAT"),
            ("OTEL_SERVICENAME", "OTEL_SERVICE_NAME"),
            ("WORKER_FOO", "WORKER_BATCH_SIZE"),
            ("Redis_TIMEOUT", ""),
            ("REDIS_timeout", "REDIS_TIMEOUT"),
        ] {
            let found = check(name, "8080").err().map(|error| error.to_string());
            let expected = (!nearest.is_empty()).then(|| {
                format!("{name}: unknown variable; write {nearest}, the nearest one, or unset it")
            });
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn only_a_secret_can_come_from_a_file() {
        for secret in SECRETS {
            assert!(check(&format!("{secret}{FILE}"), "/run/secret").is_ok());
        }
        let error = check("KAFKA_BROKERS_FILE", "/run/brokers").unwrap_err();
        assert_eq!(
            error.to_string(),
            "KAFKA_BROKERS_FILE: only a secret can come from a file; set KAFKA_BROKERS to the \
             value itself"
        );
        assert!(check("API_KEYS_FILE", "/run/keys").is_ok());
    }

    #[test]
    fn variables_of_others_are_ignored() {
        for (name, value) in [
            ("PATH", "/bin"),
            ("POSTGRES_PORT", "1"),
            ("REDIS_PORT", "26379"),
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
            ("REDIS_SERVICE_PORT", "6379"),
            ("KAFKA_BROKER_SERVICE_PORT_INTERNAL", "9092"),
            ("API_PORT", "tcp://10.0.0.1:8080"),
            ("WORKER_PORT_8081_TCP", "tcp://10.0.0.1:8081"),
            ("REDIS_MASTER_PORT_6379_TCP_ADDR", "10.0.0.1"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://localhost:4317",
            ),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
        ] {
            assert!(check(name, value).is_ok(), "{name}={value}");
        }
        for (name, value) in [
            ("REDIS_PORT_6379", "x"),
            ("REDIS_PORT_6379_HTTP", "x"),
            ("REDIS_PORT_X_TCP", "x"),
            ("WORKER_PORT", "8081"),
        ] {
            assert!(check(name, value).is_err(), "{name}={value}");
        }
    }
}
