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

use crate::pipeline::write_through::WriteThrough;

/// How often Redis is looked after.
const INTERVAL: Duration = Duration::from_secs(1);
/// Orders that one step repairs.
const STEP: usize = 500;
/// When more orders changed than this, what Redis holds is deleted instead of rewritten, and the api passes it by
/// meanwhile.
const MAX_REWRITES: u32 = 100_000;
/// Between the time that a row carries (its transaction's start) and its arrival in Redis or its mark lie at most the
/// deadlines of one transaction and one write, doubled for their retries.
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

impl Repair {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trusted = None;
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
        let answer = self.postgres.ping().await;
        self.database.set(
            answer
                .as_ref()
                .map(drop)
                .map_err(|error| error as &dyn std::fmt::Display),
        );
    }

    /// One look at Redis, and whatever that asks for. `trusted` is the watermark up to which this worker knows Redis to
    /// be complete.
    async fn step(&self, trusted: &mut Option<Watermark>) {
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
                Some(watermark)
                    if trusted.is_some_and(|trusted| trusted <= watermark) && !state.bypass =>
                {
                    watermark
                }
                older => self.catch_up(older).await?,
            };
            self.repair_marks().await?;
            self.advance(watermark).await
        };
        match repaired.await {
            Ok(watermark) => *trusted = Some(watermark),
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

    /// Repairs what is marked, oldest first, until nothing is or a step fails.
    async fn repair_marks(&self) -> Result<(), RepairError> {
        loop {
            let marks = self.postgres.repair_marks(STEP as u32).await?;
            if marks.is_empty() {
                return Ok(());
            }
            let uids: Vec<OrderUid> = marks.iter().map(|mark| mark.uid.clone()).collect();
            let read_at = Instant::now();
            let revisions = self.postgres.read_many(&uids).await?;
            let failed = self.write_through.try_write(revisions, read_at).await;
            let repaired: Vec<RepairMark> = marks
                .into_iter()
                .filter(|mark| !failed.contains(&mark.uid))
                .collect();
            self.postgres.clear_repair_marks(&repaired).await?;
            if !failed.is_empty() {
                return Err(RepairError::Incomplete(failed.len()));
            }
            tracing::info!(
                orders = repaired.len(),
                "repaired entries in Redis whose write had failed"
            );
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
