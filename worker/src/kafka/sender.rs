//! Sends single records.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::Context;
use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer},
    util::Timeout,
};
use shared::{
    config::Kafka,
    kafka::{Access, Bootstrap},
    replaced,
};
use tokio::{task::spawn_blocking, time::sleep};

use super::{client, error_log};

/// Producer that sends single records and waits for each acknowledgement.
pub(super) struct Sender(Arc<Mutex<Arc<Connected>>>);

/// A producer, and what it was created with.
struct Connected {
    producer: FutureProducer<Listener>,
    bootstrap: Arc<Bootstrap>,
    access: Access,
    config: Kafka,
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

impl Connected {
    /// Creates a producer. It connects in the background.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    fn new(config: &Kafka) -> anyhow::Result<Self> {
        let bootstrap = Arc::new(client::bootstrap(config)?);
        let listener = Listener {
            bootstrap: Arc::clone(&bootstrap),
        };
        let access = Access::new(config);
        Ok(Self {
            producer: client::producer(config)
                .create_with_context(listener)
                .context("cannot create a Kafka producer")?,
            bootstrap,
            access,
            config: config.clone(),
        })
    }
}

impl Sender {
    /// Creates a producer. It connects in the background, and uses replaced passwords and
    /// certificates.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn new(config: &Kafka) -> anyhow::Result<Self> {
        let connected = Connected::new(config)?;
        let has_files = connected.access.has_files();
        let current = Arc::new(Mutex::new(Arc::new(connected)));
        if has_files {
            tokio::spawn(follow(Arc::downgrade(&current)));
        }
        Ok(Self(current))
    }

    fn current(&self) -> Arc<Connected> {
        Arc::clone(&self.0.lock())
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
        let current = self.current();
        current.bootstrap.restore(current.producer.client());
        let delivered = current
            .producer
            .send(record, Timeout::After(client::DELIVERY_TIMEOUT))
            .await;
        delivered.map(drop).map_err(|(error, _)| error)
    }

    /// Returns the fatal error of the producer, if there is one. Every later send then fails.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.current().producer.client().fatal_error()
    }

    /// Blocks until the broker has acknowledged all sent records.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) -> Result<(), KafkaError> {
        self.current().producer.flush(limit)
    }
}

/// Follows the files until the sender is dropped. The producer of a record in progress stays until
/// the record is acknowledged.
async fn follow(sender: Weak<Mutex<Arc<Connected>>>) {
    loop {
        sleep(replaced::INTERVAL).await;
        let Some(sender) = sender.upgrade() else {
            return;
        };
        // Reading files blocks, and so does closing a producer.
        let followed = spawn_blocking(move || {
            let connected = Arc::clone(&sender.lock());
            if connected.access.follow(connected.producer.client()) {
                // The consumer reports files that cannot be used.
                if let Ok(renewed) = Connected::new(&connected.config) {
                    *sender.lock() = Arc::new(renewed);
                }
            }
        });
        if followed.await.is_err() {
            return;
        }
    }
}
