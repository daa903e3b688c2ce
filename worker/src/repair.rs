//! Keeps Redis equal to Postgres after something went wrong: writes that failed (marks), and a Redis that came back with
//! older content (watermark). Every worker looks once a second; doing the same repair twice is harmless.

use std::time::{Duration, Instant};

use shared::{
    cache::{Cache, CacheError, Watermark},
    order::OrderUid,
    runtime::health::Dependency,
    storage::{DatabaseTime, Postgres, RepairMark, StorageError},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, pipeline::write_through::WriteThrough};

/// How often Redis is looked after.
const INTERVAL: Duration = Duration::from_secs(1);
/// Marks that are looked at at once.
const MARKS: u32 = 500;
/// Orders that one step reads and writes: they may have 1 MiB each, and all of them are in memory at once.
const STEP: usize = 32;
/// When more orders changed than this, what Redis holds is deleted instead of rewritten, and the api passes it by
/// meanwhile.
const MAX_REWRITES: u32 = 100_000;
/// Between the time that a row carries (its transaction's start) and its arrival in Redis lie the deadlines of one
/// transaction and of one write; a write that takes longer is marked. Trebled, for processes that stall.
const MARGIN: Duration = Duration::from_secs(30);

/// Looks after Redis.
pub struct Repair {
    /// Where the truth is.
    pub postgres: Postgres,
    /// What is to be equal to it.
    pub cache: Cache,
    /// How orders get there.
    pub write_through: WriteThrough,
    /// Whether Redis answers.
    pub redis: Dependency,
    /// Whether Postgres answers.
    pub database: Dependency,
    /// Where the age of the oldest mark is shown.
    pub metrics: Metrics,
}

/// A repair that has to be tried again.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{0} orders could not be written")]
    Incomplete(usize),
}

/// Up to where, and in which server processes, this worker knows Redis to be complete.
#[derive(Default)]
struct Trusted {
    watermark: Option<Watermark>,
    servers: Vec<String>,
}

impl Trusted {
    /// False when Redis may hold older content: the watermark went back, or another process answers, which may have lost
    /// what came after its last snapshot even where the watermark is as it was.
    fn covers(&self, watermark: Watermark, servers: &[String]) -> bool {
        self.watermark.is_some_and(|trusted| trusted <= watermark) && self.servers == servers
    }
}

impl Repair {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trusted = Trusted::default();
        let mut policy_checked = false;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let step = async {
                self.look_at_postgres().await;
                if !policy_checked {
                    policy_checked = self.check_policy().await;
                }
                self.step(&mut trusted).await;
            };
            if shutdown.run_until_cancelled(step).await.is_none() {
                return;
            }
        }
    }

    async fn look_at_postgres(&self) {
        let answer = self.postgres.oldest_repair_mark().await;
        if let Ok(age) = &answer {
            self.metrics.repair_age(*age);
        }
        self.database.set(
            answer
                .as_ref()
                .map(drop)
                .map_err(|error| error as &dyn std::fmt::Display),
        );
    }

    /// One look at Redis, and whatever that asks for.
    async fn step(&self, trusted: &mut Trusted) {
        let state = self.cache.probe().await;
        self.redis.set(
            state
                .as_ref()
                .map(drop)
                .map_err(|error| error as &dyn std::fmt::Display),
        );
        let Ok(state) = state else { return };
        let repaired = async {
            let watermark = match state.watermark {
                Some(watermark) if !state.bypass && trusted.covers(watermark, &state.servers) => {
                    watermark
                }
                older => self.catch_up(older).await?,
            };
            self.repair_marks().await?;
            self.advance(watermark).await
        };
        match repaired.await {
            Ok(watermark) => {
                *trusted = Trusted {
                    watermark: Some(watermark),
                    servers: state.servers,
                }
            }
            Err(error) => tracing::warn!(%error, "Redis is not repaired yet; trying again"),
        }
    }

    /// Redis came back with older content, or this worker has just started and cannot know: everything that changed
    /// since its watermark is written again. Without a watermark, or when too much changed, our entries are deleted.
    async fn catch_up(&self, watermark: Option<Watermark>) -> Result<Watermark, RepairError> {
        let now = self.postgres.now().await?.0;
        let changed = match watermark {
            None => None,
            Some(watermark) => {
                let since = DatabaseTime(watermark.saturating_sub(MARGIN.as_micros() as i64));
                let ids = self.postgres.changed_since(since, MAX_REWRITES + 1).await?;
                (ids.len() <= MAX_REWRITES as usize).then_some(ids)
            }
        };
        match changed {
            Some(ids) => {
                for step in ids.chunks(STEP) {
                    let read_at = Instant::now();
                    let revisions = self.postgres.read_ids(step).await?;
                    let failed = self.write_through.try_write(revisions, read_at).await;
                    if !failed.is_empty() {
                        return Err(RepairError::Incomplete(failed.len()));
                    }
                }
                if !ids.is_empty() {
                    tracing::info!(
                        orders = ids.len(),
                        "wrote to Redis what changed since its watermark"
                    );
                }
            }
            None => {
                self.cache.begin_bypass().await?;
                let deleted = self.cache.clear().await?;
                tracing::info!(
                    deleted,
                    "Redis could not tell what it lacks; deleted our entries"
                );
            }
        }
        // Where another worker was faster, the watermark has moved, and the next look shows where it stands.
        self.cache.move_watermark(watermark, now).await?;
        Ok(now)
    }

    /// Repairs what is marked, oldest first; what cannot be written does not keep the rest waiting.
    async fn repair_marks(&self) -> Result<(), RepairError> {
        let mut last: Option<RepairMark> = None;
        let mut left = 0;
        loop {
            let mut marks = self.postgres.repair_marks(last.as_ref(), MARKS).await?;
            let Some(newest) = marks.last().cloned() else {
                break;
            };
            last = Some(newest);
            let mut failed = Vec::new();
            for step in marks.chunks(STEP) {
                let uids: Vec<OrderUid> = step.iter().map(|mark| mark.uid.clone()).collect();
                let read_at = Instant::now();
                let revisions = self.postgres.read_many(&uids).await?;
                failed.extend(self.write_through.try_write(revisions, read_at).await);
            }
            marks.retain(|mark| !failed.contains(&mark.uid));
            let repaired = marks;
            self.postgres.clear_repair_marks(&repaired).await?;
            left += failed.len();
            if !repaired.is_empty() {
                tracing::info!(
                    orders = repaired.len(),
                    "repaired entries in Redis whose write had failed"
                );
            }
        }
        match left {
            0 => Ok(()),
            left => Err(RepairError::Incomplete(left)),
        }
    }

    /// Moves the watermark to now, or to the oldest mark where there is one again.
    async fn advance(&self, watermark: Watermark) -> Result<Watermark, RepairError> {
        let reached = self.postgres.repaired_up_to().await?.0.max(watermark);
        let moved = self.cache.move_watermark(Some(watermark), reached).await?;
        // Another worker moved it further; what this one trusts stays where it was.
        Ok(if moved { reached } else { watermark })
    }

    async fn check_policy(&self) -> bool {
        match self.cache.eviction_policy().await {
            Ok(Some(policy)) if policy != "allkeys-lru" => {
                tracing::warn!(
                    policy,
                    "Redis should run with maxmemory-policy allkeys-lru: it refuses writes when full, or evicts what is still read"
                );
                true
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }
}
