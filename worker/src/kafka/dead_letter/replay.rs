//! Back to where they came from.

use anyhow::Context;
use rdkafka::{message::OwnedHeaders, producer::FutureRecord};
use shared::config::Kafka;

use super::DeadLetter;
use crate::kafka::sender::Sender;

/// Sends dead letters back to where they came from.
pub struct Replay {
    sender: Sender,
}

impl Replay {
    /// A producer for the topics that dead letters came from.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Kafka) -> anyhow::Result<Self> {
        Ok(Self {
            sender: Sender::new(config)?,
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
        self.sender
            .send(message)
            .await
            .with_context(|| format!("sending a record to {topic}"))
    }
}
