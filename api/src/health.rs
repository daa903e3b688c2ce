//! Health state for the probes of the admin port, and the loop that updates it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use shared::{
    runtime::health::Report,
    startup::{self, SchemaProblem, SchemaState},
    storage::{CacheKnowledge, Postgres, StorageError, record_state, schema::SchemaDefect},
    telemetry::{Dependency, Impairment},
};
use strum::{IntoStaticStr, VariantArray};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    auth::Oidc,
    local_cache::LocalCache,
    lookup::{Lookup, retry_on_new_connection},
    redis_health::RedisHealth,
};

/// Interval of the health checks of Postgres and Redis.
const PERIOD: Duration = Duration::from_secs(1);

/// Maximum time that the start waits for the subscription, and again for the warm-up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Progress of the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[repr(u8)]
enum StartPhase {
    /// The schema is not checked yet because Postgres does not answer.
    #[strum(serialize = "waiting for Postgres")]
    Waiting,
    /// The schema is older than this version needs.
    #[strum(serialize = "schema too old; run `worker migrate`")]
    SchemaTooOld,
    /// Tables are missing; the check `schema` names them.
    #[strum(serialize = "schema incomplete")]
    SchemaIncomplete,
    /// The keys of the OpenID Connect issuer were not fetched yet.
    #[strum(serialize = "waiting for the OpenID Connect issuer")]
    WaitingForIssuer,
    /// The api loads the newest orders into the local cache.
    #[strum(serialize = "warming up")]
    WarmingUp,
    /// The api accepts requests.
    #[strum(serialize = "started")]
    Started,
    /// The process shuts down.
    #[strum(serialize = "stopping")]
    Stopping,
}

/// State of the process, as the probes report it.
pub struct Health {
    phase: AtomicU8,
    schema: SchemaState,
    postgres: Dependency,
    /// The read replica of Postgres; `None` if lists are read from Postgres itself.
    replica: Option<Dependency>,
    /// `None` if caches are disabled.
    redis: Option<Dependency>,
    /// `None` if the api accepts no tokens.
    issuer: Option<Arc<Oidc>>,
    local: Arc<LocalCache>,
}

impl Health {
    /// A process that has just started. The state of every dependency is unknown.
    pub fn new(
        local: Arc<LocalCache>,
        uses_redis: bool,
        uses_replica: bool,
        issuer: Option<Arc<Oidc>>,
    ) -> Self {
        Self {
            phase: AtomicU8::new(StartPhase::Waiting as u8),
            schema: SchemaState::default(),
            postgres: Dependency::new("postgres", "db_up"),
            replica: uses_replica.then(|| Dependency::new("postgres replica", "db_replica_up")),
            redis: uses_redis.then(|| Dependency::new("redis", "redis_up")),
            issuer,
            local,
        }
    }

    /// State of Postgres.
    pub fn postgres(&self) -> Dependency {
        self.postgres.clone()
    }

    /// State of Redis; `None` if caches are disabled.
    pub fn redis(&self) -> Option<Dependency> {
        self.redis.clone()
    }

    /// State of the read replica of Postgres; `None` if no replica is configured.
    pub fn replica(&self) -> Option<Dependency> {
        self.replica.clone()
    }

    /// Readiness: the start is complete, the schema is right, and Postgres or Redis answers reads.
    /// An OpenID Connect issuer counts only until its keys were fetched once.
    pub fn ready(&self) -> Report {
        let phase = self.phase();
        let redis_up = self.redis.as_ref().is_some_and(Dependency::answers);
        let answers = self.postgres.is_up() || redis_up;
        let report = Report::new(phase == StartPhase::Started && self.schema.is_ok() && answers)
            .with("stage", <&str>::from(phase))
            .with("schema", self.schema.state())
            .with("postgres", self.postgres.state());
        let report = match &self.replica {
            Some(replica) => report.with("postgres replica", replica.state()),
            None => report,
        };
        let report = match &self.issuer {
            Some(issuer) => report.with("oidc issuer", issuer.state()),
            None => report,
        };
        match &self.redis {
            Some(redis) => report.with("redis", redis.state()).with(
                "announcements",
                if self.local.is_linked() {
                    "subscribed"
                } else {
                    "not subscribed"
                },
            ),
            None => report.with("redis", "off"),
        }
    }

    /// Liveness: always ok. Dependencies do not count.
    pub fn live(&self) -> Report {
        Report::new(true)
    }

    /// Marks the process as not ready, permanently.
    pub fn stop(&self) {
        self.phase
            .store(StartPhase::Stopping as u8, Ordering::Release);
    }

    fn phase(&self) -> StartPhase {
        StartPhase::VARIANTS[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Moves to phase `next`, unless the process is stopping. Returns the phase before the call.
    fn enter(&self, next: StartPhase) -> StartPhase {
        let enter = |now| (now != StartPhase::Stopping as u8).then_some(next as u8);
        let before = self
            .phase
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, enter);
        StartPhase::VARIANTS[usize::from(before.unwrap_or_else(|now| now))]
    }
}

/// Checks Postgres and Redis once a second.
pub async fn watch(health: Arc<Health>, postgres: Postgres, mut redis: Option<RedisHealth>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = retry_on_new_connection(&postgres, Instant::now(), |postgres| {
            cache_knowledge(&health, postgres)
        })
        .await;
        // Redis first: a replica that becomes ready must know whether it may read Redis.
        if let Some(redis) = &mut redis {
            redis.check(answer.as_ref().ok().cloned().flatten()).await;
        }
        let answered = answer.as_ref().map(drop);
        if health.postgres.is_up() && answered.is_err() {
            // The connection may have been dead while Postgres is well. The api rejects reads from
            // Postgres until a check succeeds, so check again at once.
            ticks.reset_immediately();
        }
        match health.schema.defect() {
            Some(defect) if answered.is_ok() => health
                .postgres
                .set_impaired(Impairment::Rejecting, &format!("schema: {defect}")),
            _ => record_state(&health.postgres, answered),
        }
    }
}

/// Checks the read replica of Postgres once a second.
pub async fn watch_replica(replica: Postgres, health: Dependency) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let version = |replica: Postgres| async move { replica.schema_version().await };
        let answered = retry_on_new_connection(&replica, Instant::now(), version).await;
        if health.is_up() && answered.is_err() {
            ticks.reset_immediately();
        }
        record_state(&health, answered.as_ref().map(drop));
    }
}

/// Checks the schema, then reads what Postgres knows about Redis. Returns none while the schema has
/// a defect: Postgres would log an error for each query of a missing table.
async fn cache_knowledge(
    health: &Health,
    postgres: Postgres,
) -> Result<Option<CacheKnowledge>, StorageError> {
    startup::look_at_schema(&postgres, &health.schema).await?;
    match health.schema.is_ok() {
        true => postgres.cache_knowledge().await.map(Some),
        false => Ok(None),
    }
}

/// Runs the start: checks the schema, waits for the keys of the OpenID Connect issuer and for the
/// first attempt to subscribe to announcements, and loads the newest `warmup` orders. Then the
/// process is ready.
pub async fn start(
    health: Arc<Health>,
    lookup: Lookup,
    postgres: Postgres,
    mut subscription_tried: watch::Receiver<bool>,
    warmup: u32,
) {
    startup::wait_for_schema(&postgres, |problem| {
        health.enter(match problem {
            SchemaProblem::Unreachable(_) | SchemaProblem::Rejected(_) => StartPhase::Waiting,
            SchemaProblem::Defect(SchemaDefect::TooOld { .. }) => StartPhase::SchemaTooOld,
            SchemaProblem::Defect(SchemaDefect::Incomplete { .. }) => StartPhase::SchemaIncomplete,
        });
    })
    .await;
    health.schema.set(Ok(()));
    if let Some(issuer) = &health.issuer {
        health.enter(StartPhase::WaitingForIssuer);
        issuer.ready().await;
    }
    health.enter(StartPhase::WarmingUp);
    // A slower subscription costs only the warm-up: the local cache is dropped when the link is up.
    let _ = timeout(PATIENCE, subscription_tried.wait_for(|tried| *tried)).await;
    if warmup > 0 {
        match timeout(PATIENCE, lookup.warm_up(warmup)).await {
            Ok(Ok(orders)) => tracing::info!(orders, "warmed up"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "warm-up failed")
            }
            Err(_) => {
                tracing::warn!(limit = ?PATIENCE, "warm-up timed out")
            }
        }
    }
    health.enter(StartPhase::Started);
    tracing::info!("ready");
}
