//! Keeps Redis equal to Postgres after something went wrong: writes that failed (marks), and a Redis that came back with
//! older content (watermark). Every worker looks once a second; doing the same repair twice is harmless.

use std::time::{Duration, Instant};

use shared::{
    cache::{Cache, CacheError, Watermark},
    order::{OrderUid, Revision},
    runtime::health::Dependency,
    storage::{DatabaseTime, Postgres, RepairMark, StorageError},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, pipeline::write_through::WriteThrough};

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

/// How many orders are read and written at once: many small ones, few large ones, for all of them are in memory.
struct Pace {
    orders: usize,
}

impl Pace {
    const MAX_ORDERS: usize = 500;
    /// Of documents; one has 1 MiB at most.
    const BYTES: usize = 4 << 20;

    /// Takes the next orders off `left`; none when nothing is left.
    fn step<'o, T>(&self, left: &mut &'o [T]) -> Option<&'o [T]> {
        left.split_off(..self.orders.min(left.len()))
            .filter(|step| !step.is_empty())
    }

    /// Supposes that the next orders are about as large as these, but never more than twice as small.
    fn adapt(&mut self, revisions: &[Revision]) {
        let documents = revisions.iter().flat_map(|revision| &revision.document);
        let bytes: usize = documents.map(|document| document.len()).sum();
        if let Some(fitting) = (Self::BYTES * revisions.len()).checked_div(bytes) {
            self.orders = fitting.clamp(1, Self::MAX_ORDERS.min(self.orders * 2));
        }
    }
}

impl Default for Pace {
    /// Nothing is known of the first ones.
    fn default() -> Self {
        Self { orders: 32 }
    }
}

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
            self.finish_abandoned().await?;
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
                let (mut pace, mut left) = (Pace::default(), ids.as_slice());
                while let Some(step) = pace.step(&mut left) {
                    let read_at = Instant::now();
                    let revisions = self.postgres.read_ids(step).await?;
                    pace.adapt(&revisions);
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
                    return Err(RepairError::Incomplete(failed.len()));
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
    async fn rewrite(
        &self,
        uids: &[OrderUid],
        pace: &mut Pace,
    ) -> Result<Vec<OrderUid>, StorageError> {
        let (mut failed, mut left) = (Vec::new(), uids);
        while let Some(step) = pace.step(&mut left) {
            let read_at = Instant::now();
            let revisions = self.postgres.read_many(step).await?;
            pace.adapt(&revisions);
            failed.extend(self.write_through.try_write(revisions, read_at).await);
        }
        Ok(failed)
    }

    /// Repairs what is marked, oldest first; what cannot be written does not keep the rest waiting.
    async fn repair_marks(&self) -> Result<(), RepairError> {
        let mut last: Option<RepairMark> = None;
        let mut pace = Pace::default();
        let mut unrepaired = 0;
        loop {
            let mut marks = self.postgres.repair_marks(last.as_ref(), MARKS).await?;
            let Some(newest) = marks.last().cloned() else {
                break;
            };
            last = Some(newest);
            let uids: Vec<OrderUid> = marks.iter().map(|mark| mark.uid.clone()).collect();
            let failed = self.rewrite(&uids, &mut pace).await?;
            marks.retain(|mark| !failed.contains(&mark.uid));
            let repaired = marks;
            self.postgres.clear_repair_marks(&repaired).await?;
            unrepaired += failed.len();
            if !repaired.is_empty() {
                tracing::info!(
                    orders = repaired.len(),
                    "repaired entries in Redis whose write had failed"
                );
            }
        }
        match unrepaired {
            0 => Ok(()),
            unrepaired => Err(RepairError::Incomplete(unrepaired)),
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

#[cfg(test)]
mod tests {
    use shared::order::Version;

    use super::*;

    fn orders(count: usize, bytes: usize) -> Vec<Revision> {
        let revision = Revision {
            uid: OrderUid::parse("u").unwrap(),
            version: Version::new(1, 1, 1),
            document: Some(vec![b'x'; bytes].into()),
        };
        vec![revision; count]
    }

    #[test]
    fn large_orders_go_in_small_steps_and_small_ones_soon_in_large_ones() {
        let mut pace = Pace::default();
        pace.adapt(&orders(pace.orders, 1 << 20));
        assert_eq!(pace.orders, 4);
        pace.adapt(&orders(pace.orders, 1200));
        assert_eq!(pace.orders, 8);
        // Erased orders say nothing.
        pace.adapt(&orders(pace.orders, 0));
        assert_eq!(pace.orders, 8);
        for _ in 0..8 {
            pace.adapt(&orders(pace.orders, 1200));
        }
        assert_eq!(pace.orders, Pace::MAX_ORDERS);
    }

    #[test]
    fn steps_leave_nothing_out() {
        let pace = Pace { orders: 3 };
        let mut left = &[1, 2, 3, 4, 5, 6, 7][..];
        let steps: Vec<&[i32]> = std::iter::from_fn(|| pace.step(&mut left)).collect();
        assert_eq!(steps, [&[1, 2, 3][..], &[4, 5, 6], &[7]]);
    }
}
