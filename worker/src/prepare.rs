//! What must hold before the worker joins the group: the schema and the topics exist, and the
//! newest dead letters are known.

use shared::{config::Kafka, order::Reason, runtime::backoff::Backoff, startup, storage::Postgres};

use crate::{
    health::Health,
    kafka::{self, dead_letter},
};

/// Number of recent dead letters with the same reason, over all partitions, that makes a starting
/// worker careful. If they are rows that Postgres rejected, the breaker starts open. If they are
/// records from the future, the first such record stops the worker. A single dead letter has no
/// effect.
const MANY: usize = 10;
/// How many of the newest dead letters the worker reads from each partition.
const NEWEST: i64 = 200;

/// The reasons that many of the newest dead letters have. A restarted worker must not dead-letter
/// another hundred records for the same reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecentDeadLetters {
    /// Many are rows that Postgres rejected.
    pub rejected_by_database: bool,
    /// Many are records from the future.
    pub future: bool,
}

/// Waits until Postgres has the schema and Kafka has the topics. Returns what the newest dead
/// letters are.
pub async fn prepare(postgres: &Postgres, kafka: &Kafka, health: &Health) -> RecentDeadLetters {
    wait_for_schema(postgres, health).await;
    check_session_timeouts(postgres).await;
    let created = match kafka.create_topics {
        true => create_topics(kafka, health).await,
        false => Vec::new(),
    };
    // A topic that was just created holds no dead letters.
    match created.contains(&kafka.dead_letter_topic) {
        true => RecentDeadLetters::default(),
        false => recent_dead_letters(kafka).await,
    }
}

async fn wait_for_schema(postgres: &Postgres, health: &Health) {
    let mut _waiting = None;
    startup::wait_for_schema(postgres, |problem| {
        _waiting = Some(health.waits.begin(health.schema_unusable(problem)));
    })
    .await;
    health.schema_usable();
}

/// Warns if Postgres ignores the timeouts that the worker sets for its sessions, as behind a
/// pooler. A worker that freezes would then block the others.
async fn check_session_timeouts(postgres: &Postgres) {
    if let Ok(false) = postgres.limits_locks().await {
        tracing::warn!(
            settings = "lock_timeout, idle_in_transaction_session_timeout",
            doc = "docs/operations.md",
            "Postgres session without timeouts"
        );
    }
}

/// Creates the topics that do not exist, retrying until Kafka answers. Returns their names.
async fn create_topics(kafka: &Kafka, health: &Health) -> Vec<String> {
    let mut backoff = Backoff::default();
    loop {
        match kafka::create_topics(kafka).await {
            Ok(created) => return created,
            Err(error) => {
                let error = format!("{error:#}");
                health.group.brokers().set(Err(&error));
                if backoff.is_to_log() {
                    tracing::warn!(
                        brokers = kafka.brokers,
                        error,
                        "waiting for Kafka (KAFKA_BROKERS)"
                    );
                }
            }
        }
        backoff.wait().await;
    }
}

/// Reads the newest dead letters. If that fails, both fields are true: a breaker that opens without
/// need only costs a trial with one order.
async fn recent_dead_letters(kafka: &Kafka) -> RecentDeadLetters {
    let kafka = kafka.clone();
    let read = move || {
        let reader = dead_letter::Reader::open(&kafka)?;
        let many = |reason| reader.newest_have_reason(reason, MANY, NEWEST);
        Ok(RecentDeadLetters {
            rejected_by_database: many(Reason::RejectedByDatabase)?,
            future: many(Reason::FutureTimestamp)?,
        })
    };
    kafka::blocking(read).await.unwrap_or_else(|error| {
        tracing::warn!(
            error = format!("{error:#}"),
            "reading recent dead letters failed; starting with one order"
        );
        RecentDeadLetters {
            rejected_by_database: true,
            future: true,
        }
    })
}
