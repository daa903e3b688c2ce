//! Repairs Redis from Postgres: orders whose write failed (repair marks), writes that a dead or
//! frozen worker left behind, and a Redis that returned with older content (watermark).
//!
//! Every worker looks once a second. It is harmless if two workers do the same repair.

mod diagnosis;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    DatabaseTime,
    cache::{Cache, CacheError, CacheState},
    order::OrderUid,
    startup::{EvictionCheck, SchemaState},
    storage::{CacheKnowledge, CompleteCache, Postgres, RepairMark, StorageError, record_state},
    telemetry::{Dependency, Impairment, OutageLog},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    pipeline::{
        step_size::StepSize,
        write_through::{Unwritten, WriteThrough},
    },
};
use diagnosis::{Diagnosis, Seen, diagnose};

/// A write to Redis that has been under way for longer than this is abandoned. Shorter than the
/// time after which the api bypasses Redis, and far longer than a write takes.
const ABANDONED: Duration = Duration::from_secs(2);
/// Maximum abandoned writes per query. Each has at most as many orders as a batch.
const WRITES: u32 = 16;
/// Interval at which a worker looks at Redis.
const INTERVAL: Duration = Duration::from_secs(1);
/// Number of looks after which the worker resolves the name of the server again, in case it moved
/// and the old server still answers.
const RESOLVE_AGAIN: u32 = 15;
/// Maximum repair marks per query.
const MARKS: u32 = 500;
/// If more orders changed than this, the worker deletes our keys in Redis instead of rewriting
/// them. The api bypasses Redis meanwhile.
const MAX_REWRITES: u32 = 100_000;
/// How far before the watermark a rewrite begins. A row carries the start time of its transaction;
/// it reaches Redis within the deadlines of one transaction and one Redis write, or is marked. This
/// is three times their sum, because processes may stall.
const MARGIN: Duration = Duration::from_secs(30);
/// How much the clocks of two Postgres servers may differ. After a failover, the watermark may be
/// ahead of the clock by that.
const CLOCKS: Duration = Duration::from_secs(10);

/// Repairs Redis once a second.
pub struct Repair {
    /// Holds the orders.
    pub postgres: Postgres,
    /// Redis, which must equal Postgres.
    pub cache: Cache,
    /// Writes orders to Redis.
    pub write_through: WriteThrough,
    /// Whether Redis answers.
    pub redis: Dependency,
    /// Whether Postgres answers.
    pub database: Dependency,
    /// Whether the schema is complete.
    pub schema: Arc<SchemaState>,
    /// Shows the age of the oldest repair mark.
    pub metrics: Metrics,
    /// Limits the log of repairs that fail.
    pub outage: OutageLog,
    /// Limits the log of watermarks that Redis evicts.
    pub evictions: OutageLog,
}

/// A repair that failed and is retried.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{orders} orders are not in Redis: {why}")]
    Incomplete { orders: usize, why: String },
}

impl RepairError {
    fn incomplete(orders: usize, error: Option<CacheError>) -> Self {
        let why = error.map(|error| error.to_string());
        Self::Incomplete {
            orders,
            why: why.unwrap_or_else(|| "each row was too old when Redis received it".to_owned()),
        }
    }
}

/// What this worker remembers of Redis between two looks.
#[derive(Default)]
struct Knowledge {
    /// Redis as this worker last saw it complete.
    seen: Option<Seen>,
    /// The mark at which the last look ended.
    last_mark: Option<RepairMark>,
    looks: u32,
}

impl Repair {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut knowledge = Knowledge::default();
        let mut eviction = EvictionCheck::default();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let step = async {
                // Look at Postgres before Redis: a worker moves the watermark before it records it
                // in Postgres, so the watermark is never behind the record.
                let recorded = self.look_at_postgres().await;
                eviction.run(&self.cache).await;
                self.step(&mut knowledge, recorded).await;
            };
            if shutdown.run_until_cancelled(step).await.is_none() {
                return;
            }
        }
    }

    /// Returns what Postgres records about Redis; none if Postgres does not answer, or cannot know
    /// because tables are missing.
    async fn look_at_postgres(&self) -> Option<CacheKnowledge> {
        if let Some(defect) = self.schema.defect() {
            let why = format!("schema: {defect}");
            self.database.set_impaired(Impairment::Rejecting, &why);
            return None;
        }
        let answer = self.postgres.cache_knowledge().await;
        if let Ok(known) = &answer {
            self.metrics.repair_age(known.oldest_repair);
        }
        record_state(&self.database, answer.as_ref().map(drop));
        answer.ok()
    }

    /// Looks at Redis once, and makes the repair that it needs.
    async fn step(&self, knowledge: &mut Knowledge, recorded: Option<CacheKnowledge>) {
        let recorded = recorded.map(|known| known.complete);
        let state = self.look(knowledge, recorded.as_ref().and_then(Option::as_ref));
        let Some(state) = state.await else { return };
        let Some(recorded) = recorded else {
            self.redis.set(Ok(()));
            return;
        };
        let diagnosis = diagnose(knowledge.seen.as_ref(), recorded.as_ref(), &state);
        let is_misplaced = diagnosis == Diagnosis::Misplaced;
        self.cache.set_misplaced(is_misplaced);
        if is_misplaced {
            let why = CacheError::Misplaced.to_string();
            self.redis.set_impaired(Impairment::OtherServer, &why);
            return;
        }
        self.redis.set(Ok(()));
        match self
            .repair(diagnosis, &state, &mut knowledge.last_mark)
            .await
        {
            Ok(until) => {
                if self.outage.ended() {
                    tracing::info!("Redis repaired");
                }
                knowledge.seen = Some(Seen {
                    until,
                    servers: state.servers,
                    replication: state.replication,
                    evicted: state.evicted,
                });
            }
            Err(error) if self.outage.failed() => {
                tracing::warn!(%error, "repairing Redis failed; retrying");
            }
            Err(_) => {}
        }
    }

    /// Returns the state of a Redis that accepts writes; none if it does not answer or rejects
    /// writes. If another server answers than before, every connection is replaced first, because
    /// others in the pool may still lead to the old server.
    async fn look(
        &self,
        knowledge: &mut Knowledge,
        recorded: Option<&CompleteCache>,
    ) -> Option<CacheState> {
        knowledge.looks = knowledge.looks.wrapping_add(1);
        if knowledge.looks.is_multiple_of(RESOLVE_AGAIN) {
            self.cache.resolve_again();
        }
        let seen = knowledge.seen.as_ref().map(|seen| &seen.servers);
        let is_known = |state: &CacheState| {
            seen.is_none_or(|servers| *servers == state.servers)
                && recorded.is_none_or(|recorded| recorded.servers == state.servers)
        };
        let mut state = self.cache.probe().await;
        if state.as_ref().is_ok_and(|state| !is_known(state)) {
            self.cache.renew();
            state = self.cache.probe().await;
        }
        match state {
            Ok(state) => match &state.rejects_writes {
                Some(why) => {
                    self.redis.set_impaired(Impairment::ReadOnly, why);
                    None
                }
                None => Some(state),
            },
            Err(error) => {
                self.redis.set(Err(&error));
                None
            }
        }
    }

    /// Makes Redis equal to Postgres; returns the moment up to which it is.
    async fn repair(
        &self,
        diagnosis: Diagnosis,
        state: &CacheState,
        last_mark: &mut Option<RepairMark>,
    ) -> Result<DatabaseTime, RepairError> {
        let (from, until) = match diagnosis {
            Diagnosis::Complete(watermark) => (Some(watermark), watermark),
            Diagnosis::Evicted(until) => (None, until),
            Diagnosis::Lost(since) => {
                let now = self.catch_up(state.watermark, since).await?;
                (Some(now), now)
            }
            Diagnosis::Misplaced => return Err(CacheError::Misplaced.into()),
        };
        self.finish_abandoned().await?;
        self.repair_marks(last_mark).await?;
        let advanced = self.advance(from, until, &state.servers).await?;
        if from.is_none() && self.evictions.failed() {
            tracing::info!("rewrote the watermark that Redis evicted");
        }
        Ok(advanced)
    }

    /// Writes to Redis what changed in Postgres from `since` on, and moves `watermark` to now. If
    /// `since` is none or too much changed, deletes our entries instead.
    async fn catch_up(
        &self,
        watermark: Option<DatabaseTime>,
        since: Option<DatabaseTime>,
    ) -> Result<DatabaseTime, RepairError> {
        let now = self.postgres.now().await?;
        let changed = match since {
            None => None,
            Some(since) => {
                let since = DatabaseTime(since.0.saturating_sub(MARGIN.as_micros() as i64));
                let ids = self.postgres.changed_since(since, MAX_REWRITES + 1).await?;
                (ids.len() <= MAX_REWRITES as usize).then_some(ids)
            }
        };
        match changed {
            Some(ids) => {
                let (mut size, mut left) = (StepSize::default(), ids.as_slice());
                while let Some(step) = size.next(&mut left) {
                    let read_at = Instant::now();
                    let revisions = self.postgres.read_ids(step).await?;
                    size.adapt(&revisions);
                    let failed = self.write_through.try_write(revisions, read_at).await;
                    if !failed.is_empty() {
                        return Err(RepairError::incomplete(failed.uids.len(), failed.error));
                    }
                }
                if !ids.is_empty() {
                    tracing::info!(
                        orders = ids.len(),
                        "rewrote the orders that changed since the watermark"
                    );
                }
            }
            None => {
                self.cache.begin_bypass().await?;
                let deleted = self.cache.clear().await?;
                tracing::info!(
                    deleted,
                    "Redis has no usable watermark; deleted all cached orders"
                );
            }
        }
        // If another worker was faster, the watermark has already moved. The next look reads it.
        self.cache.move_watermark(watermark, now).await?;
        Ok(now)
    }

    /// Finishes the writes of a worker that died or froze between COMMIT and its Redis write. Redis
    /// holds older versions of these orders.
    async fn finish_abandoned(&self) -> Result<(), RepairError> {
        let mut size = StepSize::default();
        loop {
            let abandoned = self.postgres.abandoned_cache_writes(ABANDONED, WRITES);
            let abandoned = abandoned.await?;
            if abandoned.is_empty() {
                return Ok(());
            }
            for (write, uids) in abandoned {
                let failed = self.rewrite(&uids, &mut size).await?;
                if !failed.is_empty() {
                    return Err(RepairError::incomplete(failed.uids.len(), failed.error));
                }
                self.postgres.finish_cache_writes(&[write]).await?;
                tracing::info!(orders = uids.len(), "finished abandoned writes to Redis");
            }
        }
    }

    /// Writes to Redis what Postgres holds of `uids`; returns the orders that could not be written.
    async fn rewrite(
        &self,
        uids: &[OrderUid],
        size: &mut StepSize,
    ) -> Result<Unwritten, StorageError> {
        let (mut failed, mut left) = (Unwritten::default(), uids);
        while let Some(step) = size.next(&mut left) {
            let read_at = Instant::now();
            let revisions = self.postgres.read_many(step).await?;
            size.adapt(&revisions);
            failed.extend(self.write_through.try_write(revisions, read_at).await);
        }
        Ok(failed)
    }

    /// Repairs marked orders, oldest mark first, starting after `last`.
    ///
    /// The look ends at a set of marks of which Redis accepts none, because it would accept no
    /// others either. The next look starts after them, so that orders that cannot be written do not
    /// delay the rest.
    async fn repair_marks(&self, last: &mut Option<RepairMark>) -> Result<(), RepairError> {
        let mut size = StepSize::default();
        // Only count the failures: a long outage may leave a mark for each order.
        let (mut unrepaired, mut error) = (0, None);
        loop {
            let mut marks = self.postgres.repair_marks(last.as_ref(), MARKS).await?;
            let are_all = marks.len() < MARKS as usize;
            *last = marks.last().filter(|_| !are_all).cloned();
            let uids: Vec<OrderUid> = marks.iter().map(|mark| mark.uid).collect();
            let failed = self.rewrite(&uids, &mut size).await?;
            marks.retain(|mark| !failed.uids.contains(&mark.uid));
            let repaired = marks;
            unrepaired += failed.uids.len();
            error = failed.error.or(error);
            if !repaired.is_empty() {
                self.postgres.clear_repair_marks(&repaired).await?;
                tracing::info!(orders = repaired.len(), "repaired marked orders in Redis");
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

    /// Moves the watermark from `from` to now, or to the oldest mark or note if there is one, but
    /// never below `until`, unless that is in the future. Records that in Postgres for other
    /// processes. Returns the moment up to which this worker knows Redis to be complete.
    async fn advance(
        &self,
        from: Option<DatabaseTime>,
        until: DatabaseTime,
        servers: &[String],
    ) -> Result<DatabaseTime, RepairError> {
        let reached = self.postgres.repaired_up_to().await?;
        let until = match until > reached {
            true => plausible(until, self.postgres.now().await?),
            false => until,
        };
        let reached = reached.max(until);
        if !self.cache.move_watermark(from, reached).await? {
            // Another worker has already moved it.
            return Ok(until);
        }
        self.postgres
            .remember_complete_cache(reached, servers)
            .await?;
        Ok(reached)
    }
}

/// Returns `until`, or `now` if `until` is in the future. A watermark in the future is forged, and
/// would hide that Redis has returned with older content.
fn plausible(until: DatabaseTime, now: DatabaseTime) -> DatabaseTime {
    match until.0 - now.0 > CLOCKS.as_micros() as i64 {
        true => now,
        false => until,
    }
}
