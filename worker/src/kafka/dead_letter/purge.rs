//! Deletes the oldest dead letters.

use std::time::Duration;

use anyhow::Context;
use rdkafka::admin::{AdminClient, AdminOptions};
use shared::config::Kafka;

use crate::kafka::{
    client::{self, Reporting},
    ranges::{self, ANSWER},
};

/// How long the brokers may take to delete the records on all replicas.
const DELETION: Duration = Duration::from_secs(20);

/// Deletes the records of the dead letter topic below the given offset of each partition. Kafka can
/// only delete from the beginning of a partition on.
///
/// # Errors
/// When a broker does not answer, or rejects the request, for example because the topic is
/// compacted or the user lacks the right to delete.
pub async fn delete_below(config: &Kafka, offsets: &[(i32, i64)]) -> anyhow::Result<()> {
    let admin: AdminClient<Reporting> = client::base(config)
        .create_with_context(Reporting)
        .context("cannot create a Kafka client")?;
    let topic = &config.dead_letter_topic;
    let list = ranges::list(topic, offsets.iter().copied())?;
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER))
        .operation_timeout(Some(DELETION));
    let deleted = admin.delete_records(&list, &options).await;
    let deleted = deleted.with_context(|| format!("cannot delete records of topic {topic}"))?;
    for element in deleted.elements() {
        element.error().with_context(|| {
            let partition = element.partition();
            format!("cannot delete records of partition {partition} of topic {topic}")
        })?;
    }
    Ok(())
}
