//! What the admin port says of this process, and the loop that finds it out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use shared::{
    runtime::health::{Dependency, Report},
    storage::{CacheKnowledge, Postgres, StorageError, schema::required_version},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    local_cache::LocalCache,
    lookup::{Lookup, insist},
    redis_health::RedisHealth,
};

/// How often dependencies are asked for a sign of life, and the schema until it is new enough.
const PERIOD: Duration = Duration::from_secs(1);

/// How long the start waits for a subscription, and for the warm-up.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far the start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// The schema was not checked yet, for Postgres did not answer.
    Waiting,
    /// The schema is older than this version needs.
    SchemaTooOld,
    /// The newest orders are being loaded.
    WarmingUp,
    /// Requests are welcome.
    Started,
    /// The process ends.
    Stopping,
}

impl Stage {
    const ALL: [Self; 5] = [
        Self::Waiting,
        Self::SchemaTooOld,
        Self::WarmingUp,
        Self::Started,
        Self::Stopping,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for Postgres",
            Self::SchemaTooOld => "schema too old: run `worker migrate`",
            Self::WarmingUp => "warming up",
            Self::Started => "started",
            Self::Stopping => "stopping",
        }
    }
}

/// The state of the process, as probes see it.
pub struct Health {
    stage: AtomicU8,
    postgres: Dependency,
    /// None where lists go to Postgres itself.
    replica: Option<Dependency>,
    /// None where caches are switched off.
    redis: Option<Dependency>,
    local: Arc<LocalCache>,
}

impl Health {
    /// A process that has just started, of whose dependencies nothing is known.
    pub fn new(local: Arc<LocalCache>, uses_redis: bool, uses_replica: bool) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Waiting as u8),
            postgres: Dependency::new("postgres", "db_up"),
            replica: uses_replica.then(|| Dependency::new("postgres replica", "db_replica_up")),
            redis: uses_redis.then(|| Dependency::new("redis", "redis_up")),
            local,
        }
    }

    /// Postgres.
    pub fn postgres(&self) -> Dependency {
        self.postgres.clone()
    }

    /// Redis; none where caches are switched off.
    pub fn redis(&self) -> Option<Dependency> {
        self.redis.clone()
    }

    /// The replica of Postgres for lists, where there is one.
    pub fn replica(&self) -> Option<Dependency> {
        self.replica.clone()
    }

    /// Whether requests are welcome: the start is over, and Postgres or Redis answers.
    pub fn ready(&self) -> Report {
        let stage = self.stage();
        let redis_up = self.redis.as_ref().is_some_and(Dependency::answers);
        let report = Report::new(stage == Stage::Started && (self.postgres.is_up() || redis_up))
            .with("stage", stage.as_str())
            .with("postgres", self.postgres.state());
        let report = match &self.replica {
            Some(replica) => report.with("postgres replica", replica.state()),
            None => report,
        };
        match &self.redis {
            Some(redis) => report.with("redis", redis.state()).with(
                "announcements",
                if self.local.is_linked() {
                    "heard"
                } else {
                    "not heard"
                },
            ),
            None => report.with("redis", "off"),
        }
    }

    /// That the process answers; what it depends on does not count.
    pub fn live(&self) -> Report {
        Report::new(true)
    }

    /// Requests are not welcome any more.
    pub fn stop(&self) {
        self.stage.store(Stage::Stopping as u8, Ordering::Release);
    }

    fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Acquire))]
    }

    /// Goes on to `next`, unless the process is stopping already.
    fn enter(&self, next: Stage) -> Stage {
        let enter = |now| (now != Stage::Stopping as u8).then_some(next as u8);
        let before = self
            .stage
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, enter);
        Stage::ALL[usize::from(before.unwrap_or_else(|now| now))]
    }
}

/// Asks Postgres and Redis for a sign of life once a second.
pub async fn watch(health: Arc<Health>, postgres: Postgres, mut redis: Option<RedisHealth>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = insist(&postgres, Instant::now(), |postgres| {
            cache_knowledge(&health, postgres)
        })
        .await;
        let known = answer.as_ref().ok();
        // Before the state of Postgres: a replica that is ready reads Redis.
        if let Some(redis) = &mut redis {
            redis.look(known.cloned()).await;
        }
        let answered = answer.as_ref().map(drop);
        if health.postgres.is_up() && answered.is_err() {
            // Its connection may have been dead, and Postgres well. Requests are refused until an answer comes.
            ticks.reset_immediately();
        }
        health.postgres.set(answered.map_err(|error| error as _));
    }
}

/// Asks the replica of Postgres for a sign of life, again and again.
pub async fn watch_replica(replica: Postgres, health: Dependency) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let version = |replica: Postgres| async move { replica.schema_version().await };
        let answered = insist(&replica, Instant::now(), version).await;
        if health.is_up() && answered.is_err() {
            ticks.reset_immediately();
        }
        health.set(answered.as_ref().map(drop).map_err(|error| error as _));
    }
}

/// Before the schema is there its tables are not asked for: Postgres would log an error each time.
async fn cache_knowledge(
    health: &Health,
    postgres: Postgres,
) -> Result<CacheKnowledge, StorageError> {
    match health.stage() {
        Stage::Waiting | Stage::SchemaTooOld => postgres
            .schema_version()
            .await
            .map(|_| CacheKnowledge::default()),
        Stage::WarmingUp | Stage::Started | Stage::Stopping => postgres.cache_knowledge().await,
    }
}

/// What has to happen before requests are welcome: the schema is checked, and the newest `warmup` orders are loaded, after
/// the subscription was tried.
pub async fn start(
    health: Arc<Health>,
    lookup: Lookup,
    postgres: Postgres,
    mut subscription_tried: watch::Receiver<bool>,
    warmup: u32,
) {
    wait_for_schema(&health, &postgres).await;
    health.enter(Stage::WarmingUp);
    // A subscription that takes longer only costs what is warmed up: it is dropped when the link is there.
    let _ = timeout(PATIENCE, subscription_tried.wait_for(|tried| *tried)).await;
    if warmup > 0 {
        match timeout(PATIENCE, lookup.warm_up(warmup)).await {
            Ok(Ok(orders)) => tracing::info!(orders, "warmed up"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the warm-up failed; starting with an empty cache")
            }
            Err(_) => {
                tracing::warn!(limit = ?PATIENCE, "the warm-up took too long; starting without it")
            }
        }
    }
    health.enter(Stage::Started);
    tracing::info!("ready");
}

async fn wait_for_schema(health: &Health, postgres: &Postgres) {
    let required = required_version();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        ticks.tick().await;
        match postgres.schema_version().await {
            Ok(found) if found >= required => return,
            Ok(found) => {
                if health.enter(Stage::SchemaTooOld) != Stage::SchemaTooOld {
                    tracing::error!(
                        found,
                        required,
                        "the database schema is too old: run `worker migrate`; waiting for it"
                    );
                }
            }
            Err(error) => {
                health.enter(Stage::Waiting);
                if !told {
                    tracing::warn!(%error, "waiting for Postgres to check the schema");
                    told = true;
                }
            }
        }
    }
}
