//! The properties of all Kafka clients, each with its reason where that is not obvious.

use std::{process, time::Duration};

use anyhow::Context;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use shared::{
    config::{ConfigError, Kafka},
    kafka::{Bootstrap, LIMITS, check_options, connection_properties, rejected},
};

use super::{error_log, handshakes};

/// Largest record of the dead letter topic. A larger record is sent there without its value.
pub(super) const DEAD_LETTER_MAX_BYTES: usize = 16 << 20;
/// Largest record of the topic. It exceeds the largest order, so that an oversized record can be
/// dead-lettered.
pub(super) const TOPIC_MAX_BYTES: usize = 8 << 20;
/// How long librdkafka tries to deliver a record before it reports a failure.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval of the statistics of a long-lived client.
const STATISTICS_MS: &str = "1000";

/// Prefetch limit of a consumer. The default of 64 MiB uses more memory without benefit.
const QUEUED_KIB: &str = "16384";

/// The largest unpacked batch that is readable with every codec. A worker keeps its memory promise
/// up to this size.
const UNPACKED_MAX_BYTES: usize = 48 << 20;

/// The largest buffer into which librdkafka unpacks zstd. Other codecs have no limit.
///
/// If a batch does not state its unpacked size, librdkafka tries buffers that triple in size, and
/// fails beyond the limit ([librdkafka 5260]). So only a third of the limit is certain to fit.
///
/// librdkafka also accepts a response of this size. The limit stays below 336 MiB: a TLS alert on a
/// plaintext connection reads as a response of that size.
///
/// [librdkafka 5260]: https://github.com/confluentinc/librdkafka/issues/5260
const RECEIVE_MAX_BYTES: usize = 3 * UNPACKED_MAX_BYTES;

/// librdkafka's longest time between two polls, in milliseconds. It must not be shorter than the
/// session timeout.
const POLL_INTERVAL_MS: u128 = 300_000;

/// Upper limit of the heartbeat interval. A member learns of a rebalance at its next heartbeat. The
/// broker answers a heartbeat without disk access.
const HEARTBEAT_MS: u128 = 250;

/// Returns the name of this process for brokers and dead letters: host name and process id.
pub fn client_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}-{}",
        if host.is_empty() { "worker" } else { host },
        process::id()
    )
}

/// Checks the parts of a configuration that need no broker. Creates clients, because librdkafka
/// checks some values only then, such as the certificate files.
///
/// # Errors
/// Names the variable whose value can never work.
pub fn check(config: &Kafka) -> Result<(), ConfigError> {
    config.check()?;
    let without_options = Kafka {
        options: Vec::new(),
        ..config.clone()
    };
    let ours = [consumer, producer, reader, administrator].map(|client| client(&without_options));
    check_options(config, &ours)?;
    let client: Result<BaseConsumer<Silent>, _> = consumer(config).create_with_context(Silent);
    let checked = client.and_then(|_| producer(config).create_native_config());
    checked.map(drop).map_err(|error| match &error {
        KafkaError::ClientConfig(_, problem, property, _) => {
            rejected(config, Some(property), problem)
        }
        KafkaError::ClientCreation(problem) => rejected(config, None, problem),
        other => rejected(config, None, &other.to_string()),
    })
}

/// The context of a client that makes no request.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ConsumerContext for Silent {}

/// Logs an error that librdkafka reports, at most once a minute per error code. Errors of single
/// connections are logged at level DEBUG, because [`GroupState`](super::GroupState) reports an
/// outage.
pub(super) fn report(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // Only clients with `enable.partition.eof` get this code, and their poll returns it too.
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(code) if error_log::is_outage(code) => {
            tracing::debug!(%error, reason, "broker connection failed");
        }
        Some(RDKafkaErrorCode::SSL) => handshakes::failed(reason),
        Some(code) => {
            if let Some(occurrences) = error_log::due(code) {
                tracing::error!(%error, reason, occurrences, "Kafka client reported an error");
            }
        }
        None => tracing::error!(%error, reason, "Kafka client reported an error"),
    }
}

/// The context of a short-lived client: logs lines and errors of librdkafka.
pub(super) struct Reporting;

impl ClientContext for Reporting {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        error_log::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ConsumerContext for Reporting {}

/// Returns the brokers of `KAFKA_BROKERS`, with which every client begins.
///
/// # Errors
/// When `KAFKA_BROKERS` contains a zero byte.
pub(super) fn bootstrap(config: &Kafka) -> anyhow::Result<Bootstrap> {
    Bootstrap::new(&config.brokers).context("KAFKA_BROKERS")
}

/// Returns the properties that every client needs to reach the brokers.
pub(super) fn base(config: &Kafka) -> ClientConfig {
    handshakes::configure(config);
    let mut client = ClientConfig::new();
    for (name, value) in connection_properties(config) {
        client.set(name, value);
    }
    for (name, value) in LIMITS {
        client.set(name, value);
    }
    client
        .set("client.id", client_id())
        .set("socket.nagle.disable", "true")
        // With the default of 10 s the client would stay disconnected long after a broker is back.
        .set("reconnect.backoff.max.ms", "1000");
    client
}

/// Returns the properties of the consumer in the workers' group.
pub(super) fn consumer(config: &Kafka) -> ClientConfig {
    let session = config.session_timeout.as_millis();
    let mut client = base(config);
    client
        .set("group.id", &config.group_id)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session.to_string())
        .set(
            "max.poll.interval.ms",
            session.max(POLL_INTERVAL_MS).to_string(),
        )
        .set(
            "heartbeat.interval.ms",
            (session / 5).clamp(1, HEARTBEAT_MS).to_string(),
        )
        // The worker stores the frontier, and librdkafka checks that the partition is still
        // assigned. The timer commits stored offsets.
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        // librdkafka's default, `latest`, would skip records sent before the group first read the
        // partition.
        .set("auto.offset.reset", "earliest")
        // How soon the consumer finds added partitions. The default is five minutes.
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("queued.max.messages.kbytes", QUEUED_KIB)
        .set("receive.message.max.bytes", RECEIVE_MAX_BYTES.to_string())
        // The default pauses fetching for one second when the prefetch queue is full.
        .set("fetch.queue.backoff.ms", "50")
        .set("statistics.interval.ms", STATISTICS_MS);
    client
}

/// Returns the properties of the producer of dead letters and replayed records: acknowledged by all
/// replicas, in order, no duplicates from its own retries.
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
        // The partitioner of Java producers and of our producer: a replayed record goes to the
        // partition of its key.
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("statistics.interval.ms", STATISTICS_MS);
    client
}

/// Returns the group id of the consumer that reads the dead letter topic. librdkafka requires one
/// even if the consumer joins no group and commits nothing.
pub fn reader_group(config: &Kafka) -> String {
    format!("{}-reader", config.group_id)
}

/// Returns the properties of a consumer outside any group that reads the dead letter topic.
pub(super) fn reader(config: &Kafka) -> ClientConfig {
    let mut client = outsider(config, &reader_group(config));
    client.set("fetch.message.max.bytes", DEAD_LETTER_MAX_BYTES.to_string());
    client
}

/// Returns the properties of a consumer that reads or sets the offsets of the workers' group
/// without joining it.
pub(super) fn administrator(config: &Kafka) -> ClientConfig {
    let mut client = outsider(config, &config.group_id);
    client.set("fetch.message.max.bytes", TOPIC_MAX_BYTES.to_string());
    client
}

/// Returns the properties of a consumer that joins no group, reads assigned ranges, and reports the
/// end of a partition.
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
    fn heartbeats_are_frequent_and_the_session_timeout_is_kept() {
        for session in [1, 100, 1500, 6000, 15_000, 300_000] {
            let client = consumer(&Kafka {
                session_timeout: Duration::from_millis(session),
                ..Kafka::default()
            });
            let heartbeat = number(&client, "heartbeat.interval.ms");
            assert!((1..=500).contains(&heartbeat), "{session}: {heartbeat}");
            // The broker expects several heartbeats per session.
            assert!(session < 3 || heartbeat * 3 < u128::from(session));
        }
    }

    #[test]
    fn a_value_that_librdkafka_rejects_is_an_error_that_names_the_variable() {
        for session in [6, 15, 30 * 60] {
            let session_timeout = Duration::from_secs(session);
            let config = Kafka {
                session_timeout,
                ..Kafka::default()
            };
            assert!(check(&config).is_ok(), "{session_timeout:?}");
        }
        let config = Kafka {
            security_protocol: Some("ssl".to_owned()),
            ssl_ca_location: Some("/nowhere/at/all".to_owned()),
            ..Kafka::default()
        };
        let error = check(&config).unwrap_err().to_string();
        assert!(error.starts_with("KAFKA_SSL_CA_LOCATION: "), "{error}");
    }

    #[test]
    fn options_reach_every_client_and_cannot_replace_ours() {
        let with = |options: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            Kafka {
                options: options.iter().map(owned).collect(),
                ..Kafka::default()
            }
        };
        let config = with(&[("client.rack", "a"), ("socket.keepalive.enable", "true")]);
        check(&config).unwrap();
        for client in [consumer, producer, reader, administrator, base] {
            assert_eq!(client(&config).get("client.rack"), Some("a"));
        }
        let depends = "is set by the program, whose guarantees depend on it; remove it";
        for (options, expected) in [
            (
                vec![("metadata.broker.list", "evil:9092")],
                "metadata.broker.list has a variable of its own; set KAFKA_BROKERS".to_owned(),
            ),
            (
                vec![("enable.auto.commit", "true")],
                format!("enable.auto.commit {depends}"),
            ),
            (
                vec![("request.required.acks", "0")],
                format!("request.required.acks {depends}"),
            ),
            (
                vec![("client.rack", "a"), ("client.rack", "b")],
                "client.rack is set twice; remove one".to_owned(),
            ),
            (
                vec![("no.such.property", "1")],
                "no.such.property: librdkafka rejects it: No such configuration property: \
                 \"no.such.property\"; correct or remove it"
                    .to_owned(),
            ),
        ] {
            let error = check(&with(&options)).unwrap_err().to_string();
            assert_eq!(error, format!("KAFKA_OPTIONS: {expected}"));
        }
        let error = check(&with(&[("fetch.wait.max.ms", "soon")])).unwrap_err();
        let error = error.to_string();
        let expected = "KAFKA_OPTIONS: fetch.wait.max.ms: librdkafka rejects it: ";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn every_consumer_reads_a_zstd_batch_of_the_promised_size() {
        let config = Kafka::default();
        for client in [consumer(&config), reader(&config), administrator(&config)] {
            let limit = number(&client, "receive.message.max.bytes");
            // librdkafka triples the buffer until the batch fits.
            assert!(limit >= 3 * UNPACKED_MAX_BYTES as u128);
            // The response size that librdkafka would read from the first bytes of a TLS alert or
            // an HTTP response.
            assert!(limit < u128::from(u32::from_be_bytes([0x15, 3, 1, 0])));
            assert!(client.create_native_config().is_ok());
        }
    }
}
