//! Replays dead letters to their source topics.

use anyhow::Context;
use rdkafka::{message::OwnedHeaders, producer::FutureRecord};
use shared::config::Kafka;

use super::DeadLetter;
use crate::kafka::sender::Sender;

/// Producer that replays dead letters to their source topics.
pub struct Replay {
    sender: Sender,
}

impl Replay {
    /// Creates a producer for the source topics of dead letters.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(config: &Kafka) -> anyhow::Result<Self> {
        Ok(Self {
            sender: Sender::new(config)?,
        })
    }

    /// Sends `letter` to its source topic with its original key, value and headers. Adds the
    /// original version, or with `as_new` no version.
    ///
    /// # Errors
    /// When [`DeadLetter::obstacle`] names a reason, or the broker does not acknowledge the record
    /// within ten seconds.
    pub async fn send(&self, letter: &DeadLetter, as_new: bool) -> anyhow::Result<()> {
        if let Some(obstacle) = letter.obstacle(as_new) {
            anyhow::bail!(obstacle.words());
        }
        let topic = letter.source_topic().unwrap_or_default();
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
        self.sender
            .send(message)
            .await
            .with_context(|| format!("cannot send the record to topic {topic}"))
    }
}
