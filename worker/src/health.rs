//! The state that the probes of the admin port report.

use std::{borrow::Borrow, sync::Arc, time::Duration};

use shared::{
    runtime::health::Report,
    startup::{SchemaProblem, SchemaState},
    storage::record_state,
    telemetry::Dependency,
};

use crate::{
    kafka::GroupState,
    pipeline::waits::{Wait, Waits},
};

/// The process counts as stuck after this time without progress, if it has lag and no known wait.
const STALL: Duration = Duration::from_secs(30);

/// Waits that need an operator. The worker is not ready while one lasts.
const STOPPED: [Wait; 3] = [Wait::Breaker, Wait::Deployment, Wait::Clock];

/// State of the process. Its parts are shared with the tasks that update them.
pub struct Health {
    /// How long the poll thread may give no sign of life. A rebalance callback waits for the
    /// pipeline and the broker.
    max_silence: Duration,
    /// The result of the last check of the schema.
    pub schema: Arc<SchemaState>,
    /// State of the consumer group and the brokers.
    pub group: Arc<GroupState>,
    /// Known waits of the pipeline.
    pub waits: Arc<Waits>,
    /// State of Postgres.
    pub database: Dependency,
    /// State of Redis.
    pub redis: Dependency,
}

impl Health {
    /// A process that has just started, in a group with this session timeout.
    pub fn new(session_timeout: Duration) -> Self {
        Self {
            max_silence: STALL.max(session_timeout * 2),
            schema: Arc::default(),
            group: Arc::new(GroupState::new()),
            waits: Arc::new(Waits::new()),
            database: Dependency::new("postgres", "db_up"),
            redis: Dependency::new("redis", "redis_up"),
        }
    }

    /// Records why the schema cannot be used yet. Returns the wait that follows from it.
    pub fn schema_unusable(&self, problem: &SchemaProblem) -> Wait {
        match problem {
            SchemaProblem::Unreachable(error) => {
                record_state(&self.database, Err(error));
                Wait::Postgres
            }
            SchemaProblem::Rejected(error) => {
                record_state(&self.database, Err(error));
                Wait::Deployment
            }
            SchemaProblem::Defect(defect) => {
                self.database.set(Ok(()));
                self.schema.set(Err(defect.clone()));
                Wait::Deployment
            }
        }
    }

    /// Records that the schema is new enough.
    pub fn schema_usable(&self) {
        self.database.set(Ok(()));
        self.schema.set(Ok(()));
    }

    /// Liveness: the process is not stalled. It is stalled in two cases:
    ///
    /// - For 30 s, there is lag that can be read but neither progress nor a known reason to wait.
    /// - The poll thread, which measures the lag, gives no sign of life.
    ///
    /// A partition whose fetches fail does not count, because another process would fetch the same
    /// batch.
    pub fn live(&self) -> Report {
        let stuck = self.group.lagging_for() > STALL && self.waits.idle_for() > STALL;
        let stalled = stuck || self.group.silent_for() > self.max_silence;
        self.report(!stalled)
            .with("progress", if stalled { "stalled" } else { "ok" })
    }

    /// Readiness: the schema is right, the worker is a member of the group, with or without
    /// partitions, and it has not stopped processing records.
    pub fn ready(&self) -> Report {
        let member = self.group.is_member();
        let stopped = STOPPED.into_iter().any(|wait| self.waits.waiting_for(wait));
        self.report(self.schema.is_ok() && member && !stopped)
            .with("schema", self.schema.state())
            .with("group", if member { "member" } else { "joining" })
    }

    fn report(&self, ok: bool) -> Report {
        let waits: Vec<&str> = self.waits.reasons().map(Wait::as_str).collect();
        let unreadable = self.group.unreadable().into_iter();
        let fetch_errors: Vec<String> = unreadable
            .map(|(partition, codes)| format!("partition {partition}: {codes}"))
            .collect();
        Report::new(ok)
            .with("postgres", self.database.state())
            .with("redis", self.redis.state())
            .with("kafka", self.group.brokers().state())
            .with("lag", self.group.lag().to_string())
            .with("fetch_errors", joined(&fetch_errors, "; ", "none"))
            .with("waiting_for", joined(&waits, ", ", "nothing"))
    }
}

/// Joins `texts`, or returns `none` if there are none.
fn joined<T: Borrow<str>>(texts: &[T], separator: &str, none: &str) -> String {
    match texts {
        [] => none.to_owned(),
        texts => texts.join(separator),
    }
}

#[cfg(test)]
mod tests {
    use shared::storage::schema::SchemaDefect;

    use super::*;

    fn state_of(report: &Report, name: &str) -> String {
        let check = report.checks.iter().find(|check| check.name == name);
        check.unwrap().state.clone()
    }

    fn too_old() -> SchemaDefect {
        SchemaDefect::TooOld {
            found: 5,
            required: 6,
        }
    }

    #[test]
    fn readiness_names_the_command_for_an_old_schema() {
        let health = Health::new(Duration::from_secs(15));
        assert_eq!(state_of(&health.ready(), "schema"), "unchecked");
        assert_eq!(
            health.schema_unusable(&SchemaProblem::Defect(too_old())),
            Wait::Deployment
        );
        let report = health.ready();
        assert!(!report.ok);
        assert_eq!(state_of(&report, "schema"), "too old; run `worker migrate`");
        assert_eq!(state_of(&report, "postgres"), "up");
        health.schema_usable();
        let report = health.ready();
        assert_eq!(state_of(&report, "schema"), "ok");
        assert_eq!(state_of(&report, "group"), "joining");
        assert!(!report.ok, "not a member yet");
    }

    #[test]
    fn readiness_names_what_was_dropped_under_a_running_worker() {
        let health = Health::new(Duration::from_secs(15));
        health.schema_usable();
        let missing = vec!["orders".to_owned(), "items".to_owned()];
        health.schema.set(Err(SchemaDefect::Incomplete { missing }));
        let report = health.ready();
        assert!(!report.ok);
        let state = "orders, items missing; run `worker migrate`";
        assert_eq!(state_of(&report, "schema"), state);
    }

    #[test]
    fn waits_are_listed_and_a_new_process_is_live() {
        let health = Health::new(Duration::from_secs(15));
        assert_eq!(state_of(&health.live(), "waiting_for"), "nothing");
        assert_eq!(state_of(&health.live(), "fetch_errors"), "none");
        let _postgres = health.waits.begin(Wait::Postgres);
        let _breaker = health.waits.begin(Wait::Breaker);
        let report = health.live();
        assert_eq!(state_of(&report, "waiting_for"), "postgres, breaker");
        assert!(report.ok);
    }
}
