//! The Kafka client: properties, delivery reports and record headers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use rdkafka::statistics::Statistics;
use shared::{
    kafka::{
        Access, Bootstrap, LIMITS, broker_in, check_options, connection_properties,
        handshake_problem, rejected,
    },
    telemetry::traces,
};

use crate::cli;

/// Equals `max.message.bytes` of the topic that workers create, so that records too large for an
/// order can be sent.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Counts delivery reports. Keeps the first failure and the last connection error for error
/// messages.
pub(crate) struct Reports {
    bootstrap: Bootstrap,
    access: Access,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    permanent: AtomicBool,
    /// Error of the first record that failed.
    first_failure: Mutex<Option<KafkaError>>,
    /// Last connection error that librdkafka reported.
    connection_error: Mutex<Option<String>>,
}

impl Reports {
    fn new(bootstrap: Bootstrap, access: Access) -> Self {
        Self {
            bootstrap,
            access,
            acknowledged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            permanent: AtomicBool::new(false),
            first_failure: Mutex::default(),
            connection_error: Mutex::default(),
        }
    }

    /// Number of records that the brokers acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Number of records that were not sent, or not acknowledged in time.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns the error of the first record that failed.
    pub(crate) fn first_failure(&self) -> Option<KafkaError> {
        self.first_failure.lock().clone()
    }

    /// Returns the last connection error that librdkafka reported, or the cause of a failed TLS
    /// handshake. Finding that cause takes some seconds at most.
    pub(crate) fn connection_error(&self, config: &shared::config::Kafka) -> Option<String> {
        let reason = self.connection_error.lock().clone()?;
        let broker = broker_in(&reason);
        let cause = broker.and_then(|broker| handshake_problem(config, broker));
        Some(cause.unwrap_or(reason))
    }

    /// Whether a record failed with an error that later records will also get.
    pub(crate) fn is_permanent(&self) -> bool {
        self.permanent.load(Ordering::Relaxed)
    }

    /// Counts a failed record.
    pub(crate) fn record_failure(&self, error: KafkaError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.permanent
            .fetch_or(is_permanent(&error), Ordering::Relaxed);
        self.first_failure.lock().get_or_insert(error);
    }
}

impl ClientContext for Reports {
    /// Logs at debug level: librdkafka reports an unreachable broker every second, and the summary
    /// reports it once.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        self.bootstrap.observe(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        // The error of a single broker holds more details than "all brokers down".
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.connection_error.lock() = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                tracing::trace!(
                    partition = message.partition(),
                    offset = message.offset(),
                    "acknowledged"
                );
            }
            Err((error, _)) => self.record_failure(error.clone()),
        }
    }
}

/// Creates an idempotent producer: while it lives, it neither loses nor duplicates a record.
///
/// # Errors
/// If librdkafka rejects a property, or the list of brokers holds a zero byte.
pub(crate) fn producer(
    config: &shared::config::Kafka,
    options: &cli::Kafka,
) -> anyhow::Result<BaseProducer<Reports>> {
    let bootstrap = Bootstrap::new(&config.brokers).context("KAFKA_BROKERS")?;
    let without_options = shared::config::Kafka {
        options: Vec::new(),
        ..config.clone()
    };
    check_options(config, &[properties(&without_options, options)])?;
    let access = Access::new(config);
    properties(config, options)
        .create_with_context(Reports::new(bootstrap, access))
        .map_err(|error| match &error {
            KafkaError::ClientConfig(_, problem, property, _) => {
                rejected(config, Some(property), problem).into()
            }
            KafkaError::ClientCreation(problem) => rejected(config, None, problem).into(),
            _ => anyhow::Error::new(error).context("cannot create the Kafka client"),
        })
}

/// Returns the properties of the producer.
fn properties(config: &shared::config::Kafka, options: &cli::Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    for (name, value) in connection_properties(config) {
        client.set(name, value);
    }
    for (name, value) in LIMITS {
        client.set(name, value);
    }
    client
        .set("client.id", &options.client_id)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set(
            "message.timeout.ms",
            options.timeout.as_millis().to_string(),
        )
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        // Limits memory use. librdkafka's default is 1 GiB.
        .set("queue.buffering.max.kbytes", "65536")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        // The partitioner of Java producers. If records of one order went to two partitions, only
        // their timestamps would decide which version is newer.
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .set("statistics.interval.ms", "1000");
    client
}

/// Processes delivery reports for `time`. Adds the bootstrap brokers again if librdkafka has lost
/// them, and uses a replaced password. Replaced certificates are used by the next run.
pub(crate) fn serve(producer: &BaseProducer<Reports>, time: Duration) {
    let context = producer.context();
    context.bootstrap.restore(producer.client());
    context.access.follow(producer.client());
    producer.poll(time);
}

/// Whether all later records will fail with this error too, so that sending must stop.
fn is_permanent(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageTimedOut
                | RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

/// Whether the brokers have the topic `topic`.
///
/// Requests the metadata of all topics. A request for a single topic can create it, with the
/// brokers' defaults instead of the worker's settings.
///
/// # Errors
/// If no broker responds within `timeout`.
pub(crate) fn has_topic(
    producer: &BaseProducer<Reports>,
    topic: &str,
    timeout: Duration,
) -> Result<bool, KafkaError> {
    let metadata = producer.client().fetch_metadata(None, timeout)?;
    Ok(metadata
        .topics()
        .iter()
        .any(|found| found.name() == topic && !found.partitions().is_empty()))
}

/// Returns the headers of a record: the trace context that the worker continues. `None` if traces
/// are disabled.
///
/// Each record starts its own trace. Its first span covers only the creation of the record, because
/// librdkafka sends many records later in one request.
pub(crate) fn headers_for(topic: &str) -> Option<OwnedHeaders> {
    if !traces::enabled() {
        return None;
    }
    let span = traces::tracer()
        .span_builder(format!("create {topic}"))
        .with_kind(SpanKind::Producer)
        .with_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.type", "create"),
            KeyValue::new("messaging.destination.name", topic.to_owned()),
        ])
        .start(&traces::tracer());
    let traceparent = traces::traceparent(&Context::new().with_span(span))?;
    Some(OwnedHeaders::new_with_capacity(1).insert(Header {
        key: traces::TRACEPARENT,
        value: Some(&traceparent),
    }))
}
