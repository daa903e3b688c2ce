//! Questions to the brokers.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::OUTAGE;
use crate::wait::until_within;

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks the brokers, again and again if it must be. A client that was told by a broker about to end that there are no brokers
/// forgets them all, and does not learn of that as long as nobody polls it: so after a failure the next question goes through
/// a new one.
pub(super) struct Inquirer {
    config: ClientConfig,
    client: BaseConsumer,
}

impl Inquirer {
    pub(super) fn new(config: ClientConfig) -> Self {
        let client = client(&config);
        Self { config, client }
    }

    /// The answer, if there is one now.
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

    /// The answer, as soon as there is one.
    #[track_caller]
    pub(super) fn await_answer<T>(
        &mut self,
        what: &str,
        question: impl Fn(&BaseConsumer, Duration) -> Result<T, KafkaError>,
    ) -> T {
        until_within(OUTAGE, what, || self.ask(&question))
    }

    /// First offset, and offset behind the last, of each partition of a topic, as soon as each has a leader.
    #[track_caller]
    pub(super) fn watermarks(&mut self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        self.await_answer(&format!("the offsets of {topic}"), watermarks(topic))
    }
}

fn client(config: &ClientConfig) -> BaseConsumer {
    config.create().expect("a consumer")
}

/// Asks for the first offset, and the offset behind the last, of each partition of a topic.
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
