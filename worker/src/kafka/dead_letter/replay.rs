//! Back to where they came from.

use anyhow::Context;
use rdkafka::{
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use shared::config::Kafka;

use super::DeadLetter;
use crate::kafka::client::{self, ProducerContext};

/// Sends dead letters back to where they came from.
pub struct Replay {
    producer: FutureProducer<ProducerContext>,
}

impl Replay {
    /// A producer for the topics that dead letters came from.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Kafka) -> anyhow::Result<Self> {
        Ok(Self {
            producer: client::producer(config)
                .create_with_context(ProducerContext)
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
