//! Order of the tiers, and what happens when one fails: the lookup continues with the next tier. It
//! fails only if Postgres, the last tier, gives no answer. Independent of HTTP.
//!
//! | tier | read | shared between requests |
//! |---|---|---|
//! | local cache | always, except for [`Freshness::Current`] | yes, one cache per process |
//! | Redis | likewise, unless off, under repair or failing | no: see below |
//! | Postgres | if no cache has the answer | single-flight, behind a bounded queue |
//!
//! For [`Freshness::Current`], callers share only a read that begins after their call. Such reads,
//! and lists, have a share of the connections, so that they never delay other lookups.
//!
//! Redis reads are not shared: with one multiplexed connection, a second read is cheaper than
//! waiting for the read of another request.
//!
//! `batch` finds many orders with one step per tier. `lists` reads pages of orders.
//! `visible` shows a caller what it may see.

mod batch;
mod database;
mod flights;
mod lists;
mod visible;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use shared::{
    cache::{Cache, CacheError, Cached},
    order::{OrderUid, Revision, Version},
    storage::Postgres,
    telemetry::Dependency,
};
use tokio::sync::Semaphore;

pub use database::DatabaseError;
pub(crate) use database::retry_on_new_connection;

use crate::{
    answer::Answer,
    local_cache::{LoadToken, LocalCache},
    metrics::{CacheMetrics, LocalResult, RedisResult},
    trace,
};
use database::{Database, Places};
use flights::{Boarding, Flights, FreshFlights};

/// Maximum number of concurrent writes to Redis. A row beyond it is not written; the next read
/// retries.
const MAX_FILLS: usize = 64;

/// Share of the calls for lists that exports may use: one in four, but at least one. The others
/// wait for their turn, so that exports do not delay lists.
const CALLS_PER_EXPORT: usize = 4;

/// The tier that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The local cache of the process.
    Local,
    /// The cache that all replicas share.
    Redis,
    /// Postgres, the source of truth.
    Postgres,
}

impl Source {
    /// Name of the tier in headers and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

/// Required freshness of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The caches may answer.
    Cached,
    /// Reads the current state from Postgres.
    Current,
}

/// An answer and its source.
#[derive(Clone, Debug)]
pub struct Found<A = Answer> {
    /// The answer.
    pub answer: A,
    /// The tier that answered.
    pub source: Source,
    /// Time of the lookup.
    pub took: Duration,
}

/// No tier could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The queue for Postgres is full, or the wait was too long.
    #[error("too many requests wait for Postgres")]
    Overloaded,
    /// Postgres does not answer, and no cache knows the order.
    #[error("no tier can answer")]
    Unavailable,
    /// Postgres did not find the page of a list within the deadline.
    #[error("the list takes too long")]
    SlowList,
}

impl From<DatabaseError> for LookupError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Busy => Self::Overloaded,
            DatabaseError::Down | DatabaseError::Failed(_) => Self::Unavailable,
        }
    }
}

/// The tiers that a [`Lookup`] reads.
pub struct Tiers {
    /// The local cache of the process.
    pub local: Arc<LocalCache>,
    /// The cache that all replicas share; `None` if caches are disabled.
    pub redis: Option<Cache>,
    /// Postgres, the source of truth.
    pub postgres: Postgres,
    /// Whether Postgres answered the last health check.
    pub health: Dependency,
    /// A read replica of Postgres for lists, if configured, and its health.
    pub replica: Option<(Postgres, Dependency)>,
}

/// Finds orders. Clones share their state.
#[derive(Clone)]
pub struct Lookup {
    inner: Arc<Inner>,
}

type CurrentBoarding = Boarding<OrderUid, Result<Answer, LookupError>>;

struct Inner {
    local: Arc<LocalCache>,
    redis: Option<Cache>,
    redis_usable: AtomicBool,
    database: Arc<Database>,
    /// Calls for reads past the caches.
    current_places: Places,
    /// Where lists are read: the read replica, or `database`.
    lists: Arc<Database>,
    /// Calls for lists and exports.
    list_places: Places,
    /// Calls for exports.
    exports: Semaphore,
    /// Pipelines to Redis for batches.
    pipelines: Semaphore,
    flights: Flights<(OrderUid, u64), Result<Answer, LookupError>>,
    current_flights: FreshFlights<OrderUid, Result<Answer, LookupError>>,
    fills: Arc<Semaphore>,
    metrics: Arc<CacheMetrics>,
}

impl Lookup {
    /// Creates a lookup over the given tiers. It bypasses Redis until [`Lookup::use_redis`].
    pub fn new(tiers: Tiers, metrics: Arc<CacheMetrics>) -> Self {
        let database = Arc::new(Database::new(tiers.postgres, tiers.health));
        let (lists, list_places) = match tiers.replica {
            Some((replica, health)) => {
                let replica = Arc::new(Database::new(replica, health));
                let places = replica.all();
                (replica, places)
            }
            None => (database.clone(), database.share()),
        };
        let inner = Inner {
            local: tiers.local,
            redis: tiers.redis,
            redis_usable: AtomicBool::new(false),
            exports: Semaphore::new((list_places.maximum() / CALLS_PER_EXPORT).max(1)),
            pipelines: Semaphore::new(batch::PIPELINES),
            current_places: database.share(),
            database,
            lists,
            list_places,
            flights: Flights::new(),
            current_flights: FreshFlights::new(),
            fills: Arc::new(Semaphore::new(MAX_FILLS)),
            metrics,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Enables or disables reads from Redis. Disabling them also drops the local cache, whose
    /// entries may come from Redis.
    pub fn use_redis(&self, usable: bool) {
        let was_usable = self.inner.redis_usable.swap(usable, Ordering::Relaxed);
        if was_usable && !usable {
            self.inner.local.drop_all();
        }
    }

    /// Returns the answer of the first tier that knows `uid`.
    ///
    /// # Errors
    /// Returns an error if no tier can answer.
    pub async fn find(&self, uid: OrderUid, freshness: Freshness) -> Result<Found, LookupError> {
        let started = Instant::now();
        if freshness == Freshness::Cached
            && let Some(found) = self.look_locally(&uid, started)
        {
            return Ok(found);
        }
        // Boxed, so that the future of a local hit does not reserve space for the other tiers.
        let (source, answer) = Box::pin(self.find_elsewhere(uid, freshness)).await?;
        Ok(Found {
            answer,
            source,
            took: started.elapsed(),
        })
    }

    async fn find_elsewhere(
        &self,
        uid: OrderUid,
        freshness: Freshness,
    ) -> Result<(Source, Answer), LookupError> {
        let token = self.inner.local.begin(&uid);
        if freshness == Freshness::Cached
            && let Some(answer) = self.look_in_redis(&uid, token).await
        {
            return Ok((Source::Redis, answer));
        }
        let answer = match freshness {
            Freshness::Cached => self.look_in_postgres(uid, token).await?,
            Freshness::Current => self.look_past_caches(uid, token).await?,
        };
        Ok((Source::Postgres, answer))
    }

    /// Returns the versions of those of the orders `uids` that Postgres holds, erased ones
    /// included, in any order.
    ///
    /// # Errors
    /// Returns an error if Postgres does not answer.
    pub async fn versions(
        &self,
        uids: &[OrderUid],
    ) -> Result<Vec<(OrderUid, Version)>, LookupError> {
        let versions = |postgres: Postgres| async move { postgres.versions(uids).await };
        Ok(self.inner.database.run(versions).await?)
    }

    /// Loads the newest `limit` orders into the local cache. Returns how many of them it keeps.
    ///
    /// # Errors
    /// Returns an error if Postgres does not answer.
    pub async fn warm_up(&self, limit: u32) -> Result<usize, DatabaseError> {
        let local = &self.inner.local;
        let token = local.begin_any();
        let rows = self
            .inner
            .database
            .run(|postgres| async move { postgres.newest(limit).await })
            .await?;
        // The newest last: if not all fit, the newest stay.
        let kept = rows.iter().rev().filter(|row| {
            let token = local.token_of(&row.uid, &token);
            local.insert(row.uid, Answer::from_row(Some(row)), token)
                == crate::local_cache::Insertion::Kept
        });
        Ok(kept.count())
    }

    fn look_locally(&self, uid: &OrderUid, started: Instant) -> Option<Found> {
        let metrics = &self.inner.metrics;
        let answer = trace::in_span_sync("local cache", || self.inner.local.get(uid, started));
        let took = started.elapsed();
        metrics.local_get.observe(took.as_secs_f64());
        metrics.local(local_result(answer.as_ref()));
        Some(Found {
            answer: answer?,
            source: Source::Local,
            took,
        })
    }

    async fn look_in_redis(&self, uid: &OrderUid, token: LoadToken) -> Option<Answer> {
        let (result, answer) = trace::in_span("redis", self.ask_redis(uid)).await;
        self.inner.metrics.redis(result);
        let answer = answer?;
        self.inner.local.insert(*uid, answer.clone(), token);
        Some(answer)
    }

    /// Reads Redis. A failing cache must not fail the lookup, so errors are only counted.
    async fn ask_redis(&self, uid: &OrderUid) -> (RedisResult, Option<Answer>) {
        match self.usable_redis() {
            Some(redis) => redis_answer(redis.get(uid).await),
            None => (RedisResult::Bypass, None),
        }
    }

    /// Redis; none while reads bypass it.
    fn usable_redis(&self) -> Option<&Cache> {
        let usable = self.inner.redis_usable.load(Ordering::Relaxed);
        self.inner.redis.as_ref().filter(|_| usable)
    }

    async fn look_in_postgres(
        &self,
        uid: OrderUid,
        token: LoadToken,
    ) -> Result<Answer, LookupError> {
        // The generation is part of the key: a request that arrives after an announcement must not
        // share a load that began before it.
        let key = (uid, token.generation());
        let lookup = self.clone();
        let load = move || {
            trace::carried(async move {
                // Another load may have finished since the caller checked the local cache.
                if let Some(answer) = lookup.inner.local.get(&uid, Instant::now()) {
                    return Ok(answer);
                }
                trace::in_span("postgres", lookup.load(uid, token)).await
            })
        };
        self.inner
            .flights
            .join(key, load)
            .await
            .unwrap_or(Err(LookupError::Unavailable))
    }

    async fn load(&self, uid: OrderUid, token: LoadToken) -> Result<Answer, LookupError> {
        let read_at = Instant::now();
        let read = |postgres: Postgres| async move { postgres.read(&uid).await };
        let row = self.inner.database.run(read).await?;
        Ok(self.keep_row(uid, row, read_at, token))
    }

    /// Reads the current state. Shares the read with callers that arrive before it begins.
    async fn look_past_caches(
        &self,
        uid: OrderUid,
        token: LoadToken,
    ) -> Result<Answer, LookupError> {
        let lookup = self.clone();
        let load = move |boarding| {
            trace::carried(async move {
                trace::in_span("postgres", lookup.load_current(uid, token, boarding)).await
            })
        };
        self.inner
            .current_flights
            .join(uid, load)
            .await
            .unwrap_or(Err(LookupError::Unavailable))
    }

    async fn load_current(
        &self,
        uid: OrderUid,
        token: LoadToken,
        boarding: CurrentBoarding,
    ) -> Result<Answer, LookupError> {
        let read_at = Instant::now();
        let read = |postgres: Postgres| {
            boarding.close();
            async move { postgres.read(&uid).await }
        };
        let inner = &self.inner;
        let row = inner.database.run_in(&inner.current_places, read).await?;
        Ok(self.keep_row(uid, row, read_at, token))
    }

    /// Writes the row that was read at `read_at`, or its absence, to the caches.
    fn keep_row(
        &self,
        uid: OrderUid,
        row: Option<Revision>,
        read_at: Instant,
        token: LoadToken,
    ) -> Answer {
        let answer = Answer::from_row(row.as_ref());
        self.inner.local.insert(uid, answer.clone(), token);
        if let Some(row) = row {
            self.fill_redis(row, read_at);
        }
        answer
    }

    /// Writes the row to Redis in the background.
    fn fill_redis(&self, row: Revision, read_at: Instant) {
        let Some(redis) = self.inner.redis.clone() else {
            return;
        };
        let Ok(permit) = self.inner.fills.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            // After a failed write the next read goes to Postgres again. The health check reports
            // the failure of Redis.
            if let Err(error) = redis.fill(&row, read_at).await {
                tracing::debug!(%error, order_uid = %row.uid, "Redis fill failed");
            }
            drop(permit);
        });
    }
}

fn local_result(answer: Option<&Answer>) -> LocalResult {
    match answer {
        Some(Answer::Order(_) | Answer::Erased(_)) => LocalResult::Hit,
        Some(Answer::Unknown) => LocalResult::Negative,
        None => LocalResult::Miss,
    }
}

fn redis_answer(entry: Result<Option<Cached>, CacheError>) -> (RedisResult, Option<Answer>) {
    match entry {
        Ok(Some(cached)) => (
            RedisResult::Hit,
            Some(Answer::new(cached.version, cached.document.as_deref())),
        ),
        Ok(None) => (RedisResult::Miss, None),
        Err(CacheError::Open) => (RedisResult::Bypass, None),
        Err(CacheError::Corrupt) => (RedisResult::Corrupt, None),
        Err(CacheError::Unverified) => (RedisResult::Unverified, None),
        Err(
            CacheError::Deadline(_)
            | CacheError::Connection(_)
            | CacheError::Rejected(_)
            | CacheError::Misplaced,
        ) => (RedisResult::Error, None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;
    use shared::{config, storage::Role};

    use super::*;
    use crate::{local_cache::Settings, metrics::Metrics};

    /// A lookup over services that do not exist.
    pub(super) fn lookup() -> Lookup {
        let settings = Settings {
            max_bytes: 0,
            ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
        };
        let redis = config::Redis {
            url: "redis://localhost:1".to_owned(),
            ..config::Redis::default()
        };
        let tiers = Tiers {
            local: Arc::new(LocalCache::new(settings)),
            redis: Some(Cache::shared(&redis).unwrap()),
            postgres: Postgres::new(
                "postgres://unused@localhost:1/none",
                &config::Database::default(),
                Role::Api,
            )
            .unwrap(),
            health: Dependency::new("postgres", "db_up"),
            replica: None,
        };
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Lookup::new(tiers, metrics.cache)
    }

    /// Each read moves its future and allocates it once. Rare work (connecting, tracing) must be
    /// boxed. With a future of 28 kB, a read from Redis took a third longer.
    #[tokio::test]
    async fn the_future_of_a_read_is_small() {
        let lookup = lookup();
        let uid = || OrderUid::parse("u").unwrap();
        let (local, other) = (
            size_of_val(&lookup.find(uid(), Freshness::Cached)),
            size_of_val(&lookup.find_elsewhere(uid(), Freshness::Cached)),
        );
        assert!(local < 300 && other < 1024, "{local}, {other}");
    }
}
