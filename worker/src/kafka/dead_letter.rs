//! The dead letter topic: what can never be stored, byte for byte, with the reason.

use std::{collections::HashMap, process, time::Duration};

use anyhow::Context;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord, Producer},
    util::Timeout,
};
use sha2::{Digest, Sha256};
use shared::{
    config::Kafka,
    order::{Reason, Refusal, Version},
};

use super::{
    client::{self, client_id},
    record::{Header, Record, Timestamp},
};

/// Header with a replayed record's version: `TIMESTAMP/OFFSET/PARTITION`.
pub const REPLAY_VERSION: &str = "replay-version";

/// The headers that we add, in their order. They come last: an original header of such a name stays in front of ours.
const OURS: [&str; 7] = [
    "dlq-reason",
    "dlq-detail",
    "dlq-topic",
    "dlq-partition",
    "dlq-offset",
    "dlq-timestamp",
    "dlq-worker",
];

/// How long closing waits for what is still on its way.
const FLUSH: Duration = Duration::from_secs(5);

/// Writes dead letters.
pub struct DeadLetters {
    producer: FutureProducer,
    topic: String,
    worker: String,
}

impl DeadLetters {
    /// A producer for the dead letter topic; connects by itself.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Kafka) -> anyhow::Result<Self> {
        let producer = client::producer(config)
            .create()
            .context("producer of dead letters")?;
        Ok(Self {
            producer,
            topic: config.dead_letter_topic.clone(),
            worker: client_id(),
        })
    }

    /// Sends `record` with the reason; returns once the broker has acknowledged it. A record that the topic refuses for
    /// its size goes without its value, whose length and SHA-256 the detail tells instead; if need be without its key and
    /// headers, too.
    ///
    /// # Errors
    /// When it was not acknowledged within ten seconds; it may stand in the topic all the same.
    pub async fn send(&self, record: &Record, refusal: &Refusal) -> Result<(), KafkaError> {
        let whole = self.deliver(record, refusal).await;
        if !is_too_large(&whole) {
            return whole;
        }
        let value = record.value.as_deref().unwrap_or_default();
        let mut smaller = record.clone();
        smaller.value = Some(Vec::new());
        let mut refusal = refusal.clone();
        refusal.detail = format!(
            "{}; value left out: {} bytes, sha256 {:x}",
            refusal.detail,
            value.len(),
            Sha256::digest(value)
        );
        let without_value = self.deliver(&smaller, &refusal).await;
        if !is_too_large(&without_value) {
            return without_value;
        }
        let key = smaller.key.take().unwrap_or_default();
        refusal.detail = format!(
            "{}; key left out: {} bytes; {} headers left out",
            refusal.detail,
            key.len(),
            smaller.headers.len()
        );
        smaller.headers.clear();
        self.deliver(&smaller, &refusal).await
    }

    async fn deliver(&self, record: &Record, refusal: &Refusal) -> Result<(), KafkaError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + OURS.len());
        for Header { name, value } in &record.headers {
            headers = headers.insert(rdkafka::message::Header {
                key: name,
                value: value.as_deref(),
            });
        }
        let timestamp = match record.timestamp {
            Timestamp::Create(millis) | Timestamp::LogAppend(millis) => millis,
            Timestamp::Missing => -1,
        };
        let values = [
            refusal.reason.as_str().to_owned(),
            refusal.detail.clone(),
            record.topic.to_string(),
            record.partition.to_string(),
            record.offset.to_string(),
            timestamp.to_string(),
            self.worker.clone(),
        ];
        for (name, value) in OURS.into_iter().zip(&values) {
            headers = headers.insert(rdkafka::message::Header {
                key: name,
                value: Some(value.as_bytes()),
            });
        }
        let mut message: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(&self.topic).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        let delivered = self
            .producer
            .send(message, Timeout::After(client::DELIVERY_TIMEOUT))
            .await;
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            // No later send would succeed either.
            tracing::error!(%code, reason, "the producer of dead letters cannot go on; ending the process");
            process::exit(1);
        }
        delivered.map(drop).map_err(|(error, _)| error)
    }

    /// Waits for what is on its way to the broker.
    pub fn flush(&self) {
        if let Err(error) = self.producer.flush(FLUSH) {
            tracing::warn!(%error, "dead letters were still on their way; their records will be read again");
        }
    }
}

fn is_too_large(delivered: &Result<(), KafkaError>) -> bool {
    matches!(delivered, Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge))
}

/// A record of the dead letter topic.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The record as it stands there.
    pub record: Record,
}

impl DeadLetter {
    fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.record.header(name)?).ok()
    }

    /// Why it is there: one of the codes of [`Reason`].
    pub fn reason(&self) -> &str {
        self.text("dlq-reason").unwrap_or("unknown")
    }

    /// Which rule or SQLSTATE.
    pub fn detail(&self) -> &str {
        self.text("dlq-detail").unwrap_or_default()
    }

    /// The topic that the record came from.
    pub fn source_topic(&self) -> Option<&str> {
        self.text("dlq-topic")
    }

    /// Where the record stood: its version.
    pub fn source_version(&self) -> Option<Version> {
        let number = |name| self.text(name)?.parse::<i64>().ok();
        let partition = i32::try_from(number("dlq-partition")?).ok()?;
        Some(Version::new(
            number("dlq-timestamp")?,
            number("dlq-offset")?,
            partition,
        ))
    }

    /// Whether it is sent back with the version that it had.
    fn keeps_version(&self) -> bool {
        self.source_version().is_some() || self.record.header(REPLAY_VERSION).is_some()
    }

    /// The headers to send it back with: those that it came with, and its version, unless it came with one or is to be
    /// taken `as_new`.
    pub fn replay_headers(&self, as_new: bool) -> Vec<Header> {
        let mut headers = self.record.headers.clone();
        let ours = headers.len().saturating_sub(OURS.len());
        if headers[ours..]
            .iter()
            .map(|header| header.name.as_str())
            .eq(OURS)
        {
            headers.truncate(ours);
        }
        if as_new {
            headers.retain(|header| header.name != REPLAY_VERSION);
        } else if !headers.iter().any(|header| header.name == REPLAY_VERSION)
            && let Some(version) = self.source_version()
        {
            let value = format!(
                "{}/{}/{}",
                version.timestamp_ms, version.offset, version.partition
            );
            headers.push(Header {
                name: REPLAY_VERSION.to_owned(),
                value: Some(value.into_bytes()),
            });
        }
        headers
    }
}

/// Reads the dead letter topic as it stands now.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
    ranges: Vec<Range>,
}

/// Offsets of one partition.
struct Range {
    partition: i32,
    from: i64,
    /// Behind the last.
    end: i64,
}

impl Range {
    fn last(&self, count: i64) -> Self {
        Self {
            partition: self.partition,
            from: (self.end - count).max(self.from),
            end: self.end,
        }
    }
}

/// How long one question to the brokers may take.
const METADATA: Duration = Duration::from_secs(10);

impl Reader {
    /// Looks up what the topic holds at this moment.
    ///
    /// # Errors
    /// When no broker answers within ten seconds, or the topic does not exist.
    pub fn open(config: &Kafka) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = client::reader(config).create().context("Kafka client")?;
        let topic = config.dead_letter_topic.clone();
        let metadata = consumer
            .fetch_metadata(Some(&topic), METADATA)
            .with_context(|| format!("KAFKA_BROKERS: no answer from {}", config.brokers))?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .filter(|found| found.name() == topic && found.error().is_none())
            .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
            .collect();
        anyhow::ensure!(!partitions.is_empty(), "the topic {topic} does not exist");
        let mut ranges = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let (from, end) = consumer
                .fetch_watermarks(&topic, partition, METADATA)
                .context("reading the topic's offsets")?;
            ranges.push(Range {
                partition,
                from,
                end,
            });
        }
        Ok(Self {
            consumer,
            topic,
            ranges,
        })
    }

    /// Calls `each` with every dead letter, partition by partition, oldest first, until it returns false.
    ///
    /// # Errors
    /// When a broker stops answering, or `each` fails.
    pub fn for_each(
        &self,
        mut each: impl FnMut(DeadLetter) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        for range in &self.ranges {
            if !self.read(std::slice::from_ref(range), &mut each)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether at least `count` of the newest `among` dead letters of each partition have this reason.
    ///
    /// # Errors
    /// When a broker stops answering.
    pub fn newest_have_reason(
        &self,
        reason: Reason,
        count: usize,
        among: i64,
    ) -> anyhow::Result<bool> {
        let newest: Vec<Range> = self.ranges.iter().map(|range| range.last(among)).collect();
        let mut found = 0;
        self.read(&newest, |letter| {
            found += usize::from(letter.reason() == reason.as_str());
            Ok(found < count)
        })?;
        Ok(found >= count)
    }

    /// Reads all `ranges` at once; stops when `each` returns false, which this then returns, too.
    fn read(
        &self,
        ranges: &[Range],
        mut each: impl FnMut(DeadLetter) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let topic = self.topic.as_str().into();
        let mut open: HashMap<i32, i64> = HashMap::new();
        let mut list = TopicPartitionList::new();
        for range in ranges.iter().filter(|range| range.from < range.end) {
            list.add_partition_offset(&self.topic, range.partition, Offset::Offset(range.from))?;
            open.insert(range.partition, range.end);
        }
        self.consumer.assign(&list)?;
        while !open.is_empty() {
            let message = match self.consumer.poll(METADATA) {
                Some(Ok(message)) => message,
                // Control records may stand at the end, which are never handed out.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                    continue;
                }
                Some(Err(error)) => return Err(error).context("reading the dead letter topic"),
                None => anyhow::bail!("no answer from the brokers within {METADATA:?}"),
            };
            let record = Record::copy(&message, &topic);
            let Some(end) = open.get(&record.partition).copied() else {
                continue;
            };
            if record.offset + 1 >= end {
                open.remove(&record.partition);
            }
            if record.offset < end && !each(DeadLetter { record })? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Sends dead letters back to where they came from.
pub struct Replay {
    producer: FutureProducer,
}

impl Replay {
    /// A producer for the topics that dead letters came from.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Kafka) -> anyhow::Result<Self> {
        Ok(Self {
            producer: client::producer(config)
                .create()
                .context("Kafka producer")?,
        })
    }

    /// Sends `letter` back to the topic that it came from, with its key, value and headers.
    ///
    /// # Errors
    /// When it is not a dead letter of ours or was not acknowledged within ten seconds.
    pub async fn send(&self, letter: &DeadLetter, as_new: bool) -> anyhow::Result<()> {
        let topic = letter
            .source_topic()
            .context("no dlq-topic header: not a dead letter of ours")?;
        // Without a version it would be taken for something new, and win over what came later.
        anyhow::ensure!(
            as_new || letter.keeps_version(),
            "its dlq-* headers tell no version; --as-new sends it as a new record"
        );
        let headers =
            letter
                .replay_headers(as_new)
                .iter()
                .fold(OwnedHeaders::new(), |headers, header| {
                    headers.insert(rdkafka::message::Header {
                        key: &header.name,
                        value: header.value.as_deref(),
                    })
                });
        let mut message: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
        message.key = letter.record.key.as_deref();
        message.payload = letter.record.value.as_deref();
        self.producer
            .send(message, Timeout::After(client::DELIVERY_TIMEOUT))
            .await
            .map(drop)
            .map_err(|(error, _)| anyhow::Error::from(error))
            .with_context(|| format!("sending a record to {topic}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> Header {
        Header {
            name: name.to_owned(),
            value: Some(value.as_bytes().to_vec()),
        }
    }

    fn letter(original: &[Header]) -> DeadLetter {
        let ours = [
            "invalid_order",
            "rule",
            "orders",
            "3",
            "42",
            "1700000000000",
            "w",
        ];
        let headers = original
            .iter()
            .cloned()
            .chain(
                OURS.into_iter()
                    .zip(ours)
                    .map(|(name, value)| header(name, value)),
            )
            .collect();
        let record = Record {
            topic: "orders-dlq".into(),
            partition: 0,
            offset: 0,
            timestamp: Timestamp::Missing,
            key: None,
            value: None,
            headers,
        };
        DeadLetter { record }
    }

    #[test]
    fn a_replay_drops_our_headers_and_carries_the_version() {
        let headers = letter(&[
            header("traceparent", "t"),
            header("dlq-reason", "an original of that name"),
        ])
        .replay_headers(false);
        assert_eq!(
            headers,
            [
                header("traceparent", "t"),
                header("dlq-reason", "an original of that name"),
                header(REPLAY_VERSION, "1700000000000/42/3")
            ]
        );
    }

    #[test]
    fn a_version_that_it_came_with_is_kept_unless_it_is_to_be_new() {
        let letter = letter(&[header(REPLAY_VERSION, "1/2/3")]);
        assert_eq!(
            letter.replay_headers(false),
            [header(REPLAY_VERSION, "1/2/3")]
        );
        assert!(letter.replay_headers(true).is_empty());
    }

    #[test]
    fn ours_win_over_originals_of_the_same_name() {
        let letter = letter(&[header("dlq-reason", "forged")]);
        assert_eq!(letter.reason(), "invalid_order");
        assert_eq!(
            letter.source_version(),
            Some(Version::new(1_700_000_000_000, 42, 3))
        );
    }
}
