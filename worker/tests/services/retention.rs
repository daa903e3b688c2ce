use std::time::Duration;

use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use shared::config::Kafka;
use worker::kafka::{self, Retention};

use crate::topics::Topics;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_created_dead_letter_topic_keeps_records_as_long_as_configured() {
    let topics = Topics::create("retention").await;
    let found = kafka::dead_letter_retention(&topics.kafka).await.unwrap();
    assert_eq!(found, Retention::Limited(14 * DAY));
    let described = topics
        .admin()
        .describe_configs(
            [&ResourceSpecifier::Topic(&topics.kafka.dead_letter_topic)],
            &AdminOptions::new(),
        )
        .await
        .unwrap();
    let entries = &described[0].as_ref().unwrap().entries;
    let segment = entries.iter().find(|entry| entry.name == "segment.ms");
    let expected = DAY.as_millis().to_string();
    assert_eq!(segment.unwrap().value.as_ref(), Some(&expected));

    // An existing topic stays as it is.
    let shorter = Kafka {
        dead_letter_retention: DAY,
        ..topics.kafka.clone()
    };
    kafka::create_topics(&shorter).await.unwrap();
    let found = kafka::dead_letter_retention(&shorter).await.unwrap();
    assert_eq!(found, Retention::Limited(14 * DAY));
    assert!(found.exceeds(shorter.dead_letter_retention));
}

#[tokio::test]
async fn a_missing_dead_letter_topic_has_no_retention() {
    let topics = Topics::create("no-retention").await;
    let missing = Kafka {
        dead_letter_topic: format!("{}-missing", topics.kafka.topic),
        ..topics.kafka.clone()
    };
    let error = kafka::dead_letter_retention(&missing).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.starts_with("cannot read the settings of topic "),
        "{text}"
    );
}
