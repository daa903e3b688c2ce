//! Checks at the start of a process: the schema of Postgres and the eviction policy of Redis.

use std::{mem, time::Duration};

use crate::{
    cache::Cache,
    runtime::backoff::Backoff,
    storage::{Postgres, StorageError, schema},
    telemetry::OutageLog,
};

/// Longest wait between two checks of the schema.
const SCHEMA_INTERVAL: Duration = Duration::from_secs(1);

/// The eviction policy for a cache whose entries may all be evicted. With another policy, Redis
/// rejects writes when it is full, or evicts entries that are read often.
const EVICTION_POLICY: &str = "allkeys-lru";

/// The reason why a process cannot use the schema yet.
#[derive(Debug)]
pub enum SchemaProblem {
    /// Postgres does not answer.
    Unreachable(StorageError),
    /// The schema is older than this version of the program needs.
    TooOld {
        /// The schema version of the database.
        found: i64,
        /// The lowest version that this program works with.
        required: i64,
    },
}

/// Waits until the schema is new enough. Logs a problem when it appears, then once a minute. Calls
/// `on_problem` after each failed check.
pub async fn wait_for_schema(postgres: &Postgres, mut on_problem: impl FnMut(&SchemaProblem)) {
    let mut backoff = Backoff::up_to(SCHEMA_INTERVAL);
    let (mut last, log) = (None, OutageLog::default());
    while let Some(problem) = check_schema(postgres).await {
        let kind = mem::discriminant(&problem);
        if last.replace(kind) != Some(kind) {
            log.ended();
        }
        if log.failed() {
            report(&problem);
        }
        on_problem(&problem);
        backoff.wait().await;
    }
}

async fn check_schema(postgres: &Postgres) -> Option<SchemaProblem> {
    let required = schema::required_version();
    match postgres.schema_version().await {
        Ok(found) if found >= required => None,
        Ok(found) => Some(SchemaProblem::TooOld { found, required }),
        Err(error) => Some(SchemaProblem::Unreachable(error)),
    }
}

fn report(problem: &SchemaProblem) {
    match problem {
        SchemaProblem::Unreachable(error) => {
            tracing::warn!(%error, "waiting for Postgres (DATABASE_URL)");
        }
        SchemaProblem::TooOld { found, required } => tracing::error!(
            found,
            required,
            "the database schema is too old; run `worker migrate`"
        ),
    }
}

/// A check of Redis's eviction policy that runs once.
#[derive(Debug, Default)]
pub struct EvictionCheck {
    is_done: bool,
}

impl EvictionCheck {
    /// Logs a warning if Redis has another eviction policy than `allkeys-lru`. Does nothing once
    /// Redis has answered.
    pub async fn run(&mut self, redis: &Cache) {
        if self.is_done {
            return;
        }
        // Some hosted services hide the policy. There is then nothing to compare.
        let Ok(policy) = redis.eviction_policy().await else {
            return;
        };
        self.is_done = true;
        if let Some(policy) = policy.filter(|policy| policy != EVICTION_POLICY) {
            tracing::warn!(
                policy,
                recommended = EVICTION_POLICY,
                "unsuitable maxmemory-policy of Redis"
            );
        }
    }
}
