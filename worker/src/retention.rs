//! Detects a dead letter topic that keeps personal data longer than intended. The worker never
//! changes an existing topic.

use shared::config::Kafka;

use crate::kafka;

/// Warns if the dead letter topic keeps records longer than `KAFKA_DEAD_LETTER_RETENTION`, or if
/// its settings cannot be read.
pub async fn check(config: &Kafka) {
    let topic = &config.dead_letter_topic;
    match kafka::dead_letter_retention(config).await {
        Ok(found) if found.exceeds(config.dead_letter_retention) => tracing::warn!(
            topic,
            retention = %found,
            configured = %humantime::format_duration(config.dead_letter_retention),
            doc = "docs/security.md#how-long-data-lives-and-how-to-erase-it",
            "dead letter topic keeps records longer than KAFKA_DEAD_LETTER_RETENTION"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(
            topic,
            error = format!("{error:#}"),
            "reading the retention of the dead letter topic failed"
        ),
    }
}
