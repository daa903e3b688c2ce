//! Checks of the services that a process uses: the schema of Postgres, at the start and then once a
//! second, and the eviction policy of Redis.

use std::{mem, time::Duration};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    cache::Cache,
    runtime::backoff::Backoff,
    storage::{Postgres, StorageError, schema::SchemaDefect},
    telemetry::OutageLog,
};

/// Longest wait between two checks of the schema at the start, and the interval of later checks.
const SCHEMA_INTERVAL: Duration = Duration::from_secs(1);

/// The eviction policy for a cache whose entries may all be evicted. With another policy, Redis
/// rejects writes when it is full, or evicts entries that are read often.
const EVICTION_POLICY: &str = "allkeys-lru";

/// The reason why a process cannot use the schema.
#[derive(Debug)]
pub enum SchemaProblem {
    /// Postgres does not answer.
    Unreachable(StorageError),
    /// Postgres rejects the check: the password is wrong, or a right is missing.
    Rejected(StorageError),
    /// The schema lacks what this version of the program needs.
    Defect(SchemaDefect),
}

/// The result of the last check of the schema that Postgres answered, for `/readyz`.
#[derive(Debug, Default)]
pub struct SchemaState(Mutex<Option<Result<(), SchemaDefect>>>);

impl SchemaState {
    /// Records the result of a check.
    pub fn set(&self, result: Result<(), SchemaDefect>) {
        let before = self.0.lock().replace(result.clone());
        match (result, before) {
            (Err(defect), Some(Ok(()))) => report_defect(&defect),
            (Ok(()), Some(Err(_))) => tracing::info!("the database schema is complete again"),
            _ => {}
        }
    }

    /// Returns whether the schema was right at the last check.
    pub fn is_ok(&self) -> bool {
        matches!(*self.0.lock(), Some(Ok(())))
    }

    /// Returns why the schema cannot be used, if the last check found a defect.
    pub fn defect(&self) -> Option<SchemaDefect> {
        self.0.lock().clone()?.err()
    }

    /// Returns `unchecked`, `ok`, or the defect and the next step.
    pub fn state(&self) -> String {
        match &*self.0.lock() {
            None => "unchecked".to_owned(),
            Some(Ok(())) => "ok".to_owned(),
            Some(Err(defect)) => defect.to_string(),
        }
    }
}

/// Waits until the schema is new enough. Logs a problem when it appears, then once a minute. Calls
/// `on_problem` after each failed check.
pub async fn wait_for_schema(postgres: &Postgres, mut on_problem: impl FnMut(&SchemaProblem)) {
    let mut backoff = Backoff::up_to(SCHEMA_INTERVAL);
    let (mut last, log) = (None, OutageLog::default());
    while let Err(problem) = check_schema(postgres).await {
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

/// Checks the schema once a second, because it may be reverted or dropped while the process runs.
/// Leaves `state` unchanged while Postgres does not answer. Never returns.
pub async fn watch_schema(postgres: &Postgres, state: &SchemaState) {
    let mut ticks = interval(SCHEMA_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // The state of Postgres reports why a check fails.
        let _unanswered = look_at_schema(postgres, state).await;
    }
}

/// Checks the schema once and records the result in `state`.
///
/// # Errors
/// When Postgres does not answer or rejects the check.
pub async fn look_at_schema(postgres: &Postgres, state: &SchemaState) -> Result<(), StorageError> {
    let defect = postgres.schema_defect().await?;
    state.set(defect.map_or(Ok(()), Err));
    Ok(())
}

async fn check_schema(postgres: &Postgres) -> Result<(), SchemaProblem> {
    match postgres.schema_defect().await {
        Ok(None) => Ok(()),
        Ok(Some(defect)) => Err(SchemaProblem::Defect(defect)),
        Err(error) if error.is_rejection() => Err(SchemaProblem::Rejected(error)),
        Err(error) => Err(SchemaProblem::Unreachable(error)),
    }
}

fn report(problem: &SchemaProblem) {
    match problem {
        SchemaProblem::Unreachable(error) => {
            tracing::warn!(%error, "waiting for Postgres (DATABASE_URL)");
        }
        SchemaProblem::Rejected(error) => {
            tracing::error!(%error, "Postgres rejects our calls (DATABASE_URL); retrying");
        }
        SchemaProblem::Defect(defect) => report_defect(defect),
    }
}

fn report_defect(defect: &SchemaDefect) {
    match defect {
        SchemaDefect::TooOld { found, required } => tracing::error!(
            found,
            required,
            "the database schema is too old; run `worker migrate`"
        ),
        SchemaDefect::Incomplete { missing } => tracing::error!(
            missing = missing.join(", "),
            "the database schema is incomplete; run `worker migrate`"
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
