//! Sends single records.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer},
    util::Timeout,
};
use shared::{config::Kafka, kafka::Bootstrap};

use super::{client, error_log};

/// Producer that sends single records and waits for each acknowledgement.
pub(super) struct Sender {
    producer: FutureProducer<Listener>,
    bootstrap: Arc<Bootstrap>,
}

/// Receives librdkafka's logs, statistics and errors. Delivery reports do not pass through it.
struct Listener {
    bootstrap: Arc<Bootstrap>,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        error_log::log(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        self.bootstrap.observe(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
    }
}

impl Sender {
    /// Creates a producer. It connects in the background.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub(super) fn new(config: &Kafka) -> anyhow::Result<Self> {
        let bootstrap = Arc::new(client::bootstrap(config)?);
        let listener = Listener {
            bootstrap: Arc::clone(&bootstrap),
        };
        Ok(Self {
            producer: client::producer(config)
                .create_with_context(listener)
                .context("cannot create a Kafka producer")?,
            bootstrap,
        })
    }

    /// Sends `record`. Returns once the broker has acknowledged it.
    ///
    /// # Errors
    /// When the broker does not acknowledge it within [`client::DELIVERY_TIMEOUT`]. The topic may
    /// hold the record nevertheless.
    pub(super) async fn send(
        &self,
        record: FutureRecord<'_, [u8], [u8]>,
    ) -> Result<(), KafkaError> {
        self.bootstrap.restore(self.producer.client());
        let delivered = self
            .producer
            .send(record, Timeout::After(client::DELIVERY_TIMEOUT))
            .await;
        delivered.map(drop).map_err(|(error, _)| error)
    }

    /// Returns the fatal error of the producer, if there is one. Every later send then fails.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.producer.client().fatal_error()
    }

    /// Blocks until the broker has acknowledged all sent records.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) -> Result<(), KafkaError> {
        self.producer.flush(limit)
    }
}
