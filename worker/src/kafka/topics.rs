//! Creates missing topics, and checks how long the dead letter topic keeps records.

use std::time::Duration;

use anyhow::Context;
use rdkafka::{
    admin::{
        AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
    },
    error::RDKafkaErrorCode,
};
use shared::config::Kafka;

use super::client::{self, DEAD_LETTER_MAX_BYTES, Reporting, TOPIC_MAX_BYTES};

/// Partitions of each topic, and so the largest number of workers that can share the work.
const PARTITIONS: i32 = 6;

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The longest time between the first and the last record of a segment of the dead letter topic.
/// Kafka deletes whole segments: a record lives longer than the retention by this time at most, and
/// by the five minutes between two checks. Kafka's default is a week.
const SEGMENT: Duration = Duration::from_secs(24 * 3600);

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
    let retention = config.dead_letter_retention;
    let (retention_ms, segment_ms) = (
        retention.as_millis().to_string(),
        retention.min(SEGMENT).as_millis().to_string(),
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
        .set("max.message.bytes", &dead_letter_max)
        .set("retention.ms", &retention_ms)
        .set("segment.ms", &segment_ms),
    ];
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
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

/// How long a topic keeps records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// At least as long as this.
    Limited(Duration),
    /// For good: without a limit, or because the topic is compacted and its old records are not
    /// deleted.
    Unlimited,
}

impl Retention {
    fn of(settings: &ConfigResource) -> anyhow::Result<Self> {
        let value = |name: &str| {
            let mut entries = settings.entries.iter();
            entries.find(|entry| entry.name == name)?.value.as_deref()
        };
        let policy = value("cleanup.policy").unwrap_or("delete");
        let milliseconds =
            value("retention.ms").context("no retention.ms; does the topic exist?")?;
        let milliseconds: i64 = milliseconds.parse().context("retention.ms")?;
        Ok(match u64::try_from(milliseconds) {
            Ok(limit) if policy.split(',').any(|one| one.trim() == "delete") => {
                Self::Limited(Duration::from_millis(limit))
            }
            _ => Self::Unlimited,
        })
    }

    /// Returns whether the topic keeps records longer than `limit`.
    pub fn exceeds(self, limit: Duration) -> bool {
        match self {
            Self::Limited(retention) => retention > limit,
            Self::Unlimited => true,
        }
    }
}

impl std::fmt::Display for Retention {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Limited(retention) => humantime::format_duration(*retention).fmt(formatter),
            Self::Unlimited => formatter.write_str("unlimited"),
        }
    }
}

/// Returns how long the dead letter topic keeps records.
///
/// # Errors
/// When no broker answers within ten seconds, or denies the request.
pub async fn dead_letter_retention(config: &Kafka) -> anyhow::Result<Retention> {
    let admin: AdminClient<Reporting> = client::base(config)
        .create_with_context(Reporting)
        .context("cannot create a Kafka client")?;
    let topic = &config.dead_letter_topic;
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let retention = async {
        let described = admin
            .describe_configs([&ResourceSpecifier::Topic(topic)], &options)
            .await?;
        let settings = described.into_iter().next().context("no settings")?;
        Retention::of(&settings.map_err(anyhow::Error::msg)?)
    };
    retention
        .await
        .with_context(|| format!("cannot read the settings of topic {topic}"))
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    use super::*;

    fn settings(entries: &[(&str, &str)]) -> ConfigResource {
        let entry = |(name, value): &(&str, &str)| ConfigEntry {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            source: ConfigSource::DynamicTopic,
            is_read_only: false,
            is_default: false,
            is_sensitive: false,
        };
        ConfigResource {
            specifier: OwnedResourceSpecifier::Topic("t".to_owned()),
            entries: entries.iter().map(entry).collect(),
        }
    }

    #[test]
    fn only_deleted_records_have_a_retention() {
        let day = Duration::from_secs(24 * 3600);
        for (policy, milliseconds, expected) in [
            ("delete", "86400000", Retention::Limited(day)),
            ("compact,delete", "86400000", Retention::Limited(day)),
            ("compact", "86400000", Retention::Unlimited),
            ("delete", "-1", Retention::Unlimited),
        ] {
            let settings = settings(&[("cleanup.policy", policy), ("retention.ms", milliseconds)]);
            assert_eq!(Retention::of(&settings).unwrap(), expected);
        }
        assert!(!Retention::Limited(day).exceeds(day));
        assert!(Retention::Limited(2 * day).exceeds(day));
        assert!(Retention::Unlimited.exceeds(day));
        assert!(Retention::of(&settings(&[])).is_err());
    }
}
