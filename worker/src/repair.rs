//! Keeps Redis equal to Postgres after something went wrong: writes that failed (marks), and a Redis that came back with
//! older content (watermark). Every worker looks once a second; doing the same repair twice is harmless.

use std::time::{Duration, Instant};

use shared::{
    cache::{Cache, CacheError, Watermark},
    order::OrderUid,
    runtime::health::Dependency,
    storage::{CompleteCache, DatabaseTime, Postgres, RepairMark, StorageError},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    pipeline::{
        pace::Pace,
        write_through::{Unwritten, WriteThrough},
    },
};

/// A write to Redis that has been under way for so long was left behind. Less than what the api takes for overdue, and far
/// more than a write takes.
const ABANDONED: Duration = Duration::from_secs(2);
/// Abandoned writes that are looked at at once; each has as many orders as a batch at most.
const WRITES: u32 = 16;
/// How often Redis is looked after.
const INTERVAL: Duration = Duration::from_secs(1);
/// Marks that are looked at at once.
const MARKS: u32 = 500;
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
    #[error("{orders} orders could not be written: {why}")]
    Incomplete { orders: usize, why: String },
}

impl RepairError {
    fn incomplete(orders: usize, error: Option<CacheError>) -> Self {
        let why = error.map(|error| error.to_string());
        Self::Incomplete {
            orders,
            why: why.unwrap_or_else(|| "each write came too late".to_owned()),
        }
    }
}

/// False when Redis may hold older content than when it was `seen`: the watermark went back, or another process answers, which
/// may have lost what came after its last snapshot even where the watermark is as it was.
fn is_still_complete(seen: &CompleteCache, watermark: Watermark, servers: &[String]) -> bool {
    seen.until.0 <= watermark && seen.servers == servers
}

impl Repair {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut last_mark) = (None, None);
        let mut policy_checked = false;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let step = async {
                self.look_at_postgres().await;
                if !policy_checked {
                    policy_checked = self.check_policy().await;
                }
                self.step(&mut seen, &mut last_mark).await;
            };
            if shutdown.run_until_cancelled(step).await.is_none() {
                return;
            }
        }
    }

    async fn look_at_postgres(&self) {
        let answer = self.postgres.oldest_repair().await;
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

    /// One look at Redis, and whatever that asks for. What was `seen` is what this worker knows of it, or what another one has
    /// left in Postgres: if each start of a worker were a reason for a repair, a rolling restart would empty Redis wherever
    /// more orders come than can be written anew.
    async fn step(&self, seen: &mut Option<CompleteCache>, last_mark: &mut Option<RepairMark>) {
        let state = self.cache.probe().await;
        self.redis.set(
            state
                .as_ref()
                .map(drop)
                .map_err(|error| error as &dyn std::fmt::Display),
        );
        let Ok(state) = state else { return };
        let repaired = async {
            if seen.is_none() {
                *seen = self.postgres.complete_cache().await?;
            }
            let watermark = match (state.watermark, &*seen) {
                (Some(watermark), Some(seen))
                    if !state.bypass && is_still_complete(seen, watermark, &state.servers) =>
                {
                    watermark
                }
                (older, _) => self.catch_up(older).await?,
            };
            self.finish_abandoned().await?;
            self.repair_marks(last_mark).await?;
            self.advance(watermark, state.servers).await
        };
        match repaired.await {
            Ok(complete) => *seen = Some(complete),
            Err(error) => tracing::warn!(%error, "Redis is not repaired yet; trying again"),
        }
    }

    /// Redis came back with older content, or nobody knows whether it did: everything that changed since its watermark is
    /// written again. Without a watermark, or when too much changed, our entries are deleted.
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
                let (mut pace, mut left) = (Pace::default(), ids.as_slice());
                while let Some(step) = pace.step(&mut left) {
                    let read_at = Instant::now();
                    let revisions = self.postgres.read_ids(step).await?;
                    pace.adapt(&revisions);
                    let failed = self.write_through.try_write(revisions, read_at).await;
                    if !failed.is_empty() {
                        return Err(RepairError::incomplete(failed.uids.len(), failed.error));
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

    /// Finishes what a worker that died, or stands still, has begun: what it replaced in Postgres is older in Redis.
    async fn finish_abandoned(&self) -> Result<(), RepairError> {
        let mut pace = Pace::default();
        loop {
            let abandoned = self.postgres.abandoned_cache_writes(ABANDONED, WRITES);
            let abandoned = abandoned.await?;
            if abandoned.is_empty() {
                return Ok(());
            }
            for (write, uids) in abandoned {
                let failed = self.rewrite(&uids, &mut pace).await?;
                if !failed.is_empty() {
                    return Err(RepairError::incomplete(failed.uids.len(), failed.error));
                }
                self.postgres.finish_cache_writes(&[write]).await?;
                tracing::info!(
                    orders = uids.len(),
                    "wrote to Redis what was left behind after its COMMIT"
                );
            }
        }
    }

    /// Writes to Redis what Postgres holds of `uids`; returns those that could not be written.
    async fn rewrite(&self, uids: &[OrderUid], pace: &mut Pace) -> Result<Unwritten, StorageError> {
        let (mut failed, mut left) = (Unwritten::default(), uids);
        while let Some(step) = pace.step(&mut left) {
            let read_at = Instant::now();
            let revisions = self.postgres.read_many(step).await?;
            pace.adapt(&revisions);
            failed.extend(self.write_through.try_write(revisions, read_at).await);
        }
        Ok(failed)
    }

    /// Repairs what is marked, oldest first, beginning behind `last`. Marks of which Redis takes nothing end the look, for it
    /// would take nothing of the others, either; the next look goes on behind them, so that what cannot be written does not
    /// keep the rest waiting.
    async fn repair_marks(&self, last: &mut Option<RepairMark>) -> Result<(), RepairError> {
        let mut pace = Pace::default();
        // Counted and not kept: there may be a mark for each order of a long outage.
        let (mut unrepaired, mut error) = (0, None);
        loop {
            let mut marks = self.postgres.repair_marks(last.as_ref(), MARKS).await?;
            let are_all = marks.len() < MARKS as usize;
            *last = marks.last().filter(|_| !are_all).cloned();
            let uids: Vec<OrderUid> = marks.iter().map(|mark| mark.uid).collect();
            let failed = self.rewrite(&uids, &mut pace).await?;
            marks.retain(|mark| !failed.uids.contains(&mark.uid));
            let repaired = marks;
            unrepaired += failed.uids.len();
            error = failed.error.or(error);
            if !repaired.is_empty() {
                self.postgres.clear_repair_marks(&repaired).await?;
                tracing::info!(
                    orders = repaired.len(),
                    "repaired entries in Redis whose write had failed"
                );
            }
            if are_all || repaired.is_empty() {
                break;
            }
        }
        match unrepaired {
            0 => Ok(()),
            orders => Err(RepairError::incomplete(orders, error)),
        }
    }

    /// Moves the watermark to now, or to the oldest mark where there is one again, and leaves that to workers to come.
    async fn advance(
        &self,
        watermark: Watermark,
        servers: Vec<String>,
    ) -> Result<CompleteCache, RepairError> {
        let reached = self
            .postgres
            .repaired_up_to()
            .await?
            .max(DatabaseTime(watermark));
        if self
            .cache
            .move_watermark(Some(watermark), reached.0)
            .await?
        {
            let complete = CompleteCache {
                until: reached,
                servers,
            };
            self.postgres.remember_complete_cache(&complete).await?;
            Ok(complete)
        } else {
            // Another worker moved it further; what this one has seen stays as it was.
            Ok(CompleteCache {
                until: DatabaseTime(watermark),
                servers,
            })
        }
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
