//! The Kafka client: its properties, its delivery reports, the headers of a record.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use rdkafka::statistics::Statistics;
use shared::{
    kafka::{Bootstrap, LIMITS},
    telemetry::traces,
};

use crate::cli;

/// As large as the topic takes, so that records too large for an order can be sent.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Counts delivery reports, and keeps the first complaint of each sort for the summary.
pub(crate) struct Reports {
    bootstrap: Bootstrap,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    hopeless: AtomicBool,
    /// The first record that failed.
    failure: Mutex<Option<KafkaError>>,
    /// What librdkafka said last about the connection.
    complaint: Mutex<Option<String>>,
}

impl Reports {
    fn new(bootstrap: Bootstrap) -> Self {
        Self {
            bootstrap,
            acknowledged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            hopeless: AtomicBool::new(false),
            failure: Mutex::default(),
            complaint: Mutex::default(),
        }
    }

    /// Records that the brokers have acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Records that were not sent, or not acknowledged in time.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the first of the failed records failed.
    pub(crate) fn failure(&self) -> Option<KafkaError> {
        lock(&self.failure).clone()
    }

    /// What librdkafka said last about the connection.
    pub(crate) fn complaint(&self) -> Option<String> {
        lock(&self.complaint).clone()
    }

    /// Whether a record failed in a way that the next ones will, too.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::Relaxed)
    }

    /// Counts a record that failed.
    pub(crate) fn record_failure(&self, error: KafkaError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.hopeless
            .fetch_or(is_hopeless(&error), Ordering::Relaxed);
        lock(&self.failure).get_or_insert(error);
    }
}

/// What is behind these mutexes is whole at any time, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl ClientContext for Reports {
    /// A broker that is down is reported once a second; the summary says it once.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        self.bootstrap.look(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        // That all brokers are down is the least that it can say.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *lock(&self.complaint) = Some(reason.to_owned());
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

/// A producer that loses and doubles nothing while it lives.
///
/// # Errors
/// When a property is not to librdkafka's liking.
pub(crate) fn producer(
    config: &shared::config::Kafka,
    options: &cli::Kafka,
) -> anyhow::Result<BaseProducer<Reports>> {
    let bootstrap = Bootstrap::new(&config.brokers).context("KAFKA_BROKERS")?;
    let mut client = ClientConfig::new();
    for (name, value) in config.connection_properties() {
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
        // Bounds our memory; librdkafka's own default is 1 GiB.
        .set("queue.buffering.max.kbytes", "65536")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        // Where Java producers put a key: two partitions for one order would leave its versions to clocks alone.
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .set("statistics.interval.ms", "1000")
        .create_with_context(Reports::new(bootstrap))
        .context("cannot set up the Kafka client")
}

/// Takes in delivery reports for `time`.
pub(crate) fn serve(producer: &BaseProducer<Reports>, time: Duration) {
    producer.context().bootstrap.restore(producer.client());
    producer.poll(time);
}

/// Whether an error means that nothing will go through any more, so that going on is no use.
fn is_hopeless(error: &KafkaError) -> bool {
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

/// Whether the brokers know `topic`.
///
/// Asks for all topics: asking for one can create it, with the brokers' defaults instead of the worker's choices.
///
/// # Errors
/// When no broker answers in time.
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

/// The headers of a record: the trace that the workers continue, when traces go anywhere. Each record is a trace of its own;
/// its first span stands for the making of the record, for librdkafka sends many of them at once, later.
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
