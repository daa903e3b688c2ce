//! Requests to the brokers for metadata and offsets.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::wait::until_within;

/// Timeout of a client while the broker is away. A test that stops the broker, starts it again and
/// waits for every client to reconnect takes longer on a busy machine than a single wait.
pub(super) const OUTAGE: Duration = Duration::from_secs(180);

/// Timeout of one request.
const ANSWER: Duration = Duration::from_secs(5);

/// Sends requests to the brokers and retries them. After a failure it creates a new client. Reason:
/// a broker that shuts down can answer with an empty list of brokers. The old client then has no
/// broker left, and recovers only if it is polled.
pub(super) struct Inquirer {
    config: ClientConfig,
    client: BaseConsumer,
}

impl Inquirer {
    pub(super) fn new(config: ClientConfig) -> Self {
        let client = client(&config);
        Self { config, client }
    }

    /// Sends the request once.
    pub(super) fn ask<T>(
        &mut self,
        question: impl FnOnce(&BaseConsumer, Duration) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        let answer = question(&self.client, ANSWER);
        if answer.is_err() {
            self.client = client(&self.config);
        }
        answer
    }

    /// Retries the request until it succeeds.
    #[track_caller]
    pub(super) fn await_answer<T>(
        &mut self,
        what: &str,
        question: impl Fn(&BaseConsumer, Duration) -> Result<T, KafkaError>,
    ) -> T {
        until_within(OUTAGE, what, || self.ask(&question))
    }

    /// Returns the first offset and the end offset of each partition of a topic, once each
    /// partition has a leader.
    #[track_caller]
    pub(super) fn watermarks(&mut self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        self.await_answer(&format!("the offsets of {topic}"), watermarks(topic))
    }
}

fn client(config: &ClientConfig) -> BaseConsumer {
    config.create().expect("a consumer")
}

/// A request for the first offset and the end offset of each partition of a topic.
pub(super) fn watermarks(
    topic: &str,
) -> impl Fn(&BaseConsumer, Duration) -> Result<BTreeMap<i32, (i64, i64)>, KafkaError> {
    move |client, timeout| {
        let metadata = client.fetch_metadata(Some(topic), timeout)?;
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        let watermarks = partitions
            .map(|partition| {
                let bounds = client.fetch_watermarks(topic, partition.id(), timeout)?;
                Ok((partition.id(), bounds))
            })
            .collect::<Result<BTreeMap<_, _>, KafkaError>>()?;
        if watermarks.is_empty() {
            return Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::UnknownTopicOrPartition,
            ));
        }
        Ok(watermarks)
    }
}
