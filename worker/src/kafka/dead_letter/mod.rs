//! The dead letter topic: records that cannot be stored, byte for byte, with the reason.

mod letter;
mod purge;
mod reader;
mod replay;

pub use letter::{DeadLetter, Obstacle};
pub use purge::delete_below;
pub use rdkafka::error::KafkaError as SendError;
pub use reader::Reader;
pub use replay::Replay;

pub use super::ranges::Ranges;

use std::{process, time::Duration};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::FutureRecord,
};
use sha2::{Digest, Sha256};
use shared::{config::Kafka, order::Rejection};

use super::{
    client::client_id,
    headers::Header,
    record::{Record, Timestamp},
    sender::Sender,
};

/// Header that holds the version of a replayed record: `TIMESTAMP/OFFSET/PARTITION`.
pub const REPLAY_VERSION: &str = "replay-version";

/// The headers that we add, in this order. They come last: an original header of the same name
/// stays in front of ours.
const OURS: [&str; 7] = [
    "dlq-reason",
    "dlq-detail",
    "dlq-topic",
    "dlq-partition",
    "dlq-offset",
    "dlq-timestamp",
    "dlq-worker",
];

/// Where the detail of a dead letter says that its value is not in the topic.
const VALUE_LEFT_OUT: &str = "; value left out: ";

/// Limit for [`DeadLetters::flush`].
const FLUSH: Duration = Duration::from_secs(5);

/// Producer of dead letters.
pub struct DeadLetters {
    sender: Sender,
    topic: String,
    worker: String,
}

impl DeadLetters {
    /// Creates a producer for the dead letter topic. It connects in the background.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(config: &Kafka) -> anyhow::Result<Self> {
        Ok(Self {
            sender: Sender::new(config)?,
            topic: config.dead_letter_topic.clone(),
            worker: client_id(),
        })
    }

    /// Sends `record` with the reason. Returns once the broker has acknowledged it.
    ///
    /// If the record is too large for the topic, sends it again with an empty value. The detail
    /// then holds the length and the SHA-256 of the value. If that is still too large, omits key
    /// and headers too.
    ///
    /// # Errors
    /// When the broker does not acknowledge the record within ten seconds. The topic may hold it
    /// nevertheless.
    pub async fn send(&self, record: &Record, rejection: &Rejection) -> Result<(), KafkaError> {
        let whole = self.deliver(record, rejection).await;
        if !is_too_large(&whole) {
            return whole;
        }
        let value = record.value.as_deref().unwrap_or_default();
        let mut smaller = record.clone();
        smaller.value = Some(Vec::new());
        let mut rejection = rejection.clone();
        rejection.detail = format!(
            "{}{VALUE_LEFT_OUT}{} bytes, sha256 {:x}",
            rejection.detail,
            value.len(),
            Sha256::digest(value)
        );
        let without_value = self.deliver(&smaller, &rejection).await;
        if !is_too_large(&without_value) {
            return without_value;
        }
        let key = smaller.key.take().unwrap_or_default();
        rejection.detail = format!(
            "{}; key left out: {} bytes; {} headers left out",
            rejection.detail,
            key.len(),
            smaller.headers.len()
        );
        smaller.headers.clear();
        self.deliver(&smaller, &rejection).await
    }

    async fn deliver(&self, record: &Record, rejection: &Rejection) -> Result<(), KafkaError> {
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
            rejection.reason.as_str().to_owned(),
            rejection.detail.clone(),
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
        let delivered = self.sender.send(message).await;
        if let Some((code, reason)) = self.sender.fatal_error() {
            // Every later send would fail too.
            tracing::error!(%code, reason, "fatal error of the dead letter producer; exiting");
            process::exit(1);
        }
        delivered
    }

    /// Blocks until the broker has acknowledged all sent dead letters, for at most five seconds.
    /// Logs a warning if some are left.
    pub fn flush(&self) {
        if let Err(error) = self.sender.flush(FLUSH) {
            tracing::warn!(%error, "dead letter flush timed out; records will be read again");
        }
    }
}

fn is_too_large(delivered: &Result<(), KafkaError>) -> bool {
    let code = delivered.as_ref().err();
    let code = code.and_then(KafkaError::rdkafka_error_code);
    code == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}
