//! Creates missing topics.

use anyhow::Context;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::RDKafkaErrorCode,
};
use shared::config::Kafka;

use super::client::{self, DEAD_LETTER_MAX_BYTES, Reporting, TOPIC_MAX_BYTES};

/// Partitions of each topic, and so the largest number of workers that can share the work.
const PARTITIONS: i32 = 6;

/// Creates the topic and the dead letter topic if they do not exist. Returns the names of the
/// created topics.
///
/// # Errors
/// When no broker answers within ten seconds, or the broker rejects the request.
pub async fn create_topics(config: &Kafka) -> anyhow::Result<Vec<String>> {
    let admin: AdminClient<Reporting> = client::base(config)
        .create_with_context(Reporting)
        .context("cannot create a Kafka client")?;
    let (topic_max, dead_letter_max) = (
        TOPIC_MAX_BYTES.to_string(),
        DEAD_LETTER_MAX_BYTES.to_string(),
    );
    let topics = [
        // The broker's clock sets the timestamps of versions: one clock for each partition, not one
        // for each producer.
        NewTopic::new(&config.topic, PARTITIONS, TopicReplication::Fixed(-1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("max.message.bytes", &topic_max),
        NewTopic::new(
            &config.dead_letter_topic,
            PARTITIONS,
            TopicReplication::Fixed(-1),
        )
        .set("message.timestamp.type", "LogAppendTime")
        .set("max.message.bytes", &dead_letter_max),
    ];
    let options = AdminOptions::new().request_timeout(Some(std::time::Duration::from_secs(10)));
    let mut created = Vec::new();
    for result in admin
        .create_topics(&topics, &options)
        .await
        .context("cannot create the topics")?
    {
        match result {
            Ok(topic) => {
                tracing::info!(topic, partition_count = PARTITIONS, "topic created");
                created.push(topic);
            }
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => anyhow::bail!("cannot create topic {topic}: {code}"),
        }
    }
    Ok(created)
}
