//! All properties of all Kafka clients, with the reason for each that is not obvious.

use std::{process, time::Duration};

use anyhow::Context;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use shared::{
    config::{ConfigError, Kafka},
    kafka::{Bootstrap, LIMITS},
};

use super::complaints;

/// The dead letter topic takes records of this size; what is larger goes there without its value.
pub(super) const DEAD_LETTER_MAX_BYTES: usize = 16 << 20;
/// The topic takes records of this size, so that one that is too large for an order can be dead-lettered.
pub(super) const TOPIC_MAX_BYTES: usize = 8 << 20;
/// How long librdkafka tries to deliver a dead letter before it says that it could not.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a client that lives long tells how it is.
const STATISTICS_MS: &str = "1000";

/// What a consumer reads ahead; the default of 64 MiB is memory for nothing.
const QUEUED_KIB: &str = "16384";

/// The unpacked size up to which a batch of records can be read whatever its codec, and a worker keeps its memory promise.
const UNPACKED_MAX_BYTES: usize = 48 << 20;

/// librdkafka unpacks zstd into a buffer of at most this size. Where the batch does not state its unpacked size it tries buffers
/// that triple, and gives up beyond the limit ([librdkafka 5260]), so that only a third of the limit is sure to fit. Other codecs
/// have no limit. An answer of this size is still accepted; 336 MiB is what a TLS alert looks like on a plaintext connection.
///
/// [librdkafka 5260]: https://github.com/confluentinc/librdkafka/issues/5260
const RECEIVE_MAX_BYTES: usize = 3 * UNPACKED_MAX_BYTES;

/// How long a member may take to learn of a rebalance. The broker answers a heartbeat without touching its disk.
const HEARTBEAT_MS: u128 = 250;

/// The name of this process towards brokers and in dead letters: host name and process id.
pub fn client_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}-{}",
        if host.is_empty() { "worker" } else { host },
        process::id()
    )
}

/// Which variable a property comes from.
const VARIABLES: [(&str, &str); 8] = [
    ("bootstrap.servers", "KAFKA_BROKERS"),
    ("group.id", "KAFKA_GROUP_ID"),
    ("session.timeout.ms", "KAFKA_SESSION_TIMEOUT"),
    ("security.protocol", "KAFKA_SECURITY_PROTOCOL"),
    ("sasl.mechanism", "KAFKA_SASL_MECHANISM"),
    ("sasl.username", "KAFKA_SASL_USERNAME"),
    ("sasl.password", "KAFKA_SASL_PASSWORD"),
    ("ssl.ca.location", "KAFKA_SSL_CA_LOCATION"),
];

/// Checks what can be known of a configuration without a broker.
///
/// # Errors
/// Names the variable that can never work.
pub fn check(config: &Kafka) -> Result<(), ConfigError> {
    let names = [
        ("KAFKA_BROKERS", &config.brokers),
        ("KAFKA_TOPIC", &config.topic),
        ("KAFKA_DEAD_LETTER_TOPIC", &config.dead_letter_topic),
        ("KAFKA_GROUP_ID", &config.group_id),
    ];
    for (variable, value) in names {
        if value.trim().is_empty() {
            return Err(ConfigError::malformed(variable, "must not be empty"));
        }
    }
    match consumer(config).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, problem, property, _)) => {
            let variable = VARIABLES
                .iter()
                .find(|(name, _)| *name == property)
                .map_or("KAFKA_*", |(_, variable)| variable);
            Err(ConfigError::malformed(variable, problem))
        }
        Err(other) => Err(ConfigError::malformed("KAFKA_*", other.to_string())),
    }
}

/// Logs an error that librdkafka reports, once a minute while it lasts. The state of Kafka reports an outage, so errors of
/// single connections are for debugging.
pub(super) fn report(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // Only who wants to know where a partition ends is told, and that by the poll, too.
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(code) if complaints::is_outage(code) => {
            tracing::debug!(%error, reason, "connection to a broker");
        }
        Some(code) => {
            if let Some(occurrences) = complaints::due(code) {
                tracing::error!(%error, reason, occurrences, "Kafka client reported an error");
            }
        }
        None => tracing::error!(%error, reason, "Kafka client reported an error"),
    }
}

/// The context of a client that is there for one question.
pub(super) struct Reporting;

impl ClientContext for Reporting {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        complaints::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ConsumerContext for Reporting {}

/// The brokers that every client begins with.
///
/// # Errors
/// When there is a zero byte in `KAFKA_BROKERS`.
pub(super) fn bootstrap(config: &Kafka) -> anyhow::Result<Bootstrap> {
    Bootstrap::new(&config.brokers).context("KAFKA_BROKERS")
}

/// What every client needs to reach the brokers.
pub(super) fn base(config: &Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    for (name, value) in config.connection_properties() {
        client.set(name, value);
    }
    for (name, value) in LIMITS {
        client.set(name, value);
    }
    client
        .set("client.id", client_id())
        .set("socket.nagle.disable", "true")
        // The default of 10 s would keep us away from a broker that is long back.
        .set("reconnect.backoff.max.ms", "1000");
    client
}

/// The consumer of the workers' group.
pub(super) fn consumer(config: &Kafka) -> ClientConfig {
    let session = config.session_timeout.as_millis();
    let mut client = base(config);
    client
        .set("group.id", &config.group_id)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session.to_string())
        .set(
            "heartbeat.interval.ms",
            (session / 5).clamp(1, HEARTBEAT_MS).to_string(),
        )
        // We say which offsets are done (storing checks that the partition is ours), the timer commits them.
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        // librdkafka's default, `latest`, would skip what was sent before the group first met the partition.
        .set("auto.offset.reset", "earliest")
        // Partitions that were added are found so soon; the default is five minutes.
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("queued.max.messages.kbytes", QUEUED_KIB)
        .set("receive.message.max.bytes", RECEIVE_MAX_BYTES.to_string())
        // The default is a second's pause when so much is queued.
        .set("fetch.queue.backoff.ms", "50")
        .set("statistics.interval.ms", STATISTICS_MS);
    client
}

/// The producer of dead letters and of replayed records: acknowledged by all replicas, in order, without doubles of its own.
pub(super) fn producer(config: &Kafka) -> ClientConfig {
    let mut client = base(config);
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set(
            "message.timeout.ms",
            DELIVERY_TIMEOUT.as_millis().to_string(),
        )
        .set("message.max.bytes", DEAD_LETTER_MAX_BYTES.to_string())
        // As Java's producers and ours, so that a replayed record goes to the partition of its key.
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("statistics.interval.ms", STATISTICS_MS);
    client
}

/// A consumer outside any group, for looking at the dead letter topic.
pub(super) fn reader(config: &Kafka) -> ClientConfig {
    // librdkafka asks for a group even where none is joined and nothing is committed.
    let mut client = outsider(config, &format!("{}-reader", config.group_id));
    client.set("fetch.message.max.bytes", DEAD_LETTER_MAX_BYTES.to_string());
    client
}

/// A consumer that looks at the offsets of the workers' group, or sets them, without joining it.
pub(super) fn administrator(config: &Kafka) -> ClientConfig {
    let mut client = outsider(config, &config.group_id);
    client.set("fetch.message.max.bytes", TOPIC_MAX_BYTES.to_string());
    client
}

/// A consumer that joins no group and reads what it is told to, up to the end.
fn outsider(config: &Kafka, group: &str) -> ClientConfig {
    let mut client = base(config);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("receive.message.max.bytes", RECEIVE_MAX_BYTES.to_string())
        .set("queued.max.messages.kbytes", QUEUED_KIB);
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(client: &ClientConfig, property: &str) -> u128 {
        client.get(property).unwrap().parse().unwrap()
    }

    #[test]
    fn a_member_learns_of_a_rebalance_in_well_under_a_second_and_keeps_its_session() {
        for session in [1, 100, 1500, 6000, 15_000, 300_000] {
            let client = consumer(&Kafka {
                session_timeout: Duration::from_millis(session),
                ..Kafka::default()
            });
            let heartbeat = number(&client, "heartbeat.interval.ms");
            assert!((1..=500).contains(&heartbeat), "{session}: {heartbeat}");
            // The broker expects several heartbeats in a session.
            assert!(session < 3 || heartbeat * 3 < u128::from(session));
        }
    }

    #[test]
    fn every_consumer_unpacks_a_zstd_batch_of_the_promised_size() {
        let config = Kafka::default();
        for client in [consumer(&config), reader(&config), administrator(&config)] {
            let limit = number(&client, "receive.message.max.bytes");
            // A buffer triples until it is large enough.
            assert!(limit >= 3 * UNPACKED_MAX_BYTES as u128);
            // The size that the first bytes of a TLS alert or of an HTTP answer would stand for.
            assert!(limit < u128::from(u32::from_be_bytes([0x15, 3, 1, 0])));
            assert!(client.create_native_config().is_ok());
        }
    }
}
