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

use super::{client, complaints};

/// Sends single records and waits until each is acknowledged.
pub(super) struct Sender {
    producer: FutureProducer<Listener>,
    bootstrap: Arc<Bootstrap>,
}

/// Hears what librdkafka says beside its delivery reports.
struct Listener {
    bootstrap: Arc<Bootstrap>,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        complaints::log(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        self.bootstrap.look(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
    }
}

impl Sender {
    /// Connects by itself.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub(super) fn new(config: &Kafka) -> anyhow::Result<Self> {
        let bootstrap = Arc::new(client::bootstrap(config)?);
        let listener = Listener {
            bootstrap: Arc::clone(&bootstrap),
        };
        Ok(Self {
            producer: client::producer(config)
                .create_with_context(listener)
                .context("Kafka producer")?,
            bootstrap,
        })
    }

    /// Returns once the broker has acknowledged `record`.
    ///
    /// # Errors
    /// When it has not within [`client::DELIVERY_TIMEOUT`]; the record may stand in its topic all the same.
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

    /// After this, if there is one, no send succeeds any more.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.producer.client().fatal_error()
    }

    /// Waits for what is on its way to the broker.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) -> Result<(), KafkaError> {
        self.producer.flush(limit)
    }
}
