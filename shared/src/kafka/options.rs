//! `KAFKA_OPTIONS`: properties of librdkafka that a deployment adds.

use rdkafka::ClientConfig;

use crate::config::{ConfigError, Kafka};

const VARIABLE: &str = "KAFKA_OPTIONS";

/// The properties with a variable of their own.
const VARIABLES: [(&str, &str); 11] = [
    ("bootstrap.servers", "KAFKA_BROKERS"),
    ("group.id", "KAFKA_GROUP_ID"),
    ("session.timeout.ms", "KAFKA_SESSION_TIMEOUT"),
    ("security.protocol", "KAFKA_SECURITY_PROTOCOL"),
    ("sasl.mechanism", "KAFKA_SASL_MECHANISM"),
    ("sasl.username", "KAFKA_SASL_USERNAME"),
    ("sasl.password", "KAFKA_SASL_PASSWORD"),
    ("ssl.ca.location", "KAFKA_SSL_CA_LOCATION"),
    ("ssl.certificate.location", "KAFKA_SSL_CERTIFICATE_LOCATION"),
    ("ssl.key.location", "KAFKA_SSL_KEY_LOCATION"),
    ("ssl.key.password", "KAFKA_SSL_KEY_PASSWORD"),
];

/// Other names that librdkafka accepts for properties: the alias, then the name that we use.
const ALIASES: [(&str, &str); 10] = [
    ("metadata.broker.list", "bootstrap.servers"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("auto.commit.enable", "enable.auto.commit"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("retries", "message.send.max.retries"),
];

/// Returns the variable that sets `property`; none if there is none.
fn variable_of(property: &str) -> Option<&'static str> {
    let known = VARIABLES.iter().find(|(name, _)| *name == property);
    known.map(|(_, variable)| *variable)
}

/// Returns the error for a configuration that librdkafka rejects with `problem`. `property` is the
/// name of the rejected property, if librdkafka gives one. Otherwise its text names it.
pub fn rejected(config: &Kafka, property: Option<&str>, problem: &str) -> ConfigError {
    let names = |name: &str| match property {
        Some(property) => property == name,
        None => problem.contains(name),
    };
    if let Some((name, _)) = config.options.iter().find(|(name, _)| names(name)) {
        let problem = problem.trim_end_matches('.');
        let problem = format!("{name}: librdkafka rejects it: {problem}; correct or remove it");
        return ConfigError::malformed(VARIABLE, problem);
    }
    let known = VARIABLES.iter().find(|(name, _)| names(name));
    ConfigError::malformed(known.map_or("KAFKA_*", |(_, variable)| variable), problem)
}

/// Checks that `KAFKA_OPTIONS` sets no property that one of `clients` sets, nor one twice. Each of
/// `clients` is built without options.
///
/// # Errors
/// Names the property, and the variable to use in its place.
pub fn check_options(config: &Kafka, clients: &[ClientConfig]) -> Result<(), ConfigError> {
    for (index, (option, _)) in config.options.iter().enumerate() {
        let alias = ALIASES.iter().find(|(alias, _)| alias == option);
        let property = alias.map_or(option.as_str(), |(_, name)| name);
        let problem = if let Some(variable) = variable_of(property) {
            format!("{option} has a variable of its own; set {variable}")
        } else if clients.iter().any(|client| client.get(property).is_some()) {
            format!("{option} is set by the program, whose guarantees depend on it; remove it")
        } else if config.options[..index]
            .iter()
            .any(|(name, _)| name == option)
        {
            format!("{option} is set twice; remove one")
        } else {
            continue;
        };
        return Err(ConfigError::malformed(VARIABLE, problem));
    }
    Ok(())
}
