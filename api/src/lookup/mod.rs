//! In which order the tiers are asked, and what a broken one means: the next is asked, and only when the last one, Postgres,
//! gives no answer is there none. Knows no HTTP.
//!
//! | tier | asked | shared between requests |
//! |---|---|---|
//! | local cache | always, but for [`Freshness::Current`] | by its nature |
//! | Redis | as above, unless it is off, under repair or failing | no: one multiplexed connection makes a second question cheaper than waiting for somebody else's |
//! | Postgres | when the caches cannot tell | single-flight, behind a bounded queue |

mod database;
mod flights;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use shared::{
    cache::{Cache, CacheError},
    order::{OrderUid, Revision},
    runtime::health::Dependency,
    storage::{ListFilter, Postgres, Summary},
};
use tokio::sync::Semaphore;

pub use database::DatabaseError;
pub(crate) use database::insist;

use crate::{
    answer::Answer,
    local_cache::{LocalCache, Ticket},
    metrics::{CacheMetrics, LocalResult, RedisResult},
    trace,
};
use database::Database;
use flights::Flights;

/// Writes back to Redis that may be under way; what does not fit is left to the next read.
const MAX_FILLS: usize = 64;

/// Which tier answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cache inside the process.
    Local,
    /// The cache that the replicas share.
    Redis,
    /// The truth.
    Postgres,
}

impl Source {
    /// Its name in headers and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

/// How current an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As current as the caches are.
    Cached,
    /// What Postgres says now.
    Current,
}

/// An answer, and where it came from.
#[derive(Clone, Debug)]
pub struct Found {
    /// The answer.
    pub answer: Answer,
    /// The tier that gave it.
    pub source: Source,
    /// How long the look-up took.
    pub took: Duration,
}

/// No tier could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Too many requests wait for Postgres.
    #[error("too many requests wait for Postgres")]
    Overloaded,
    /// Postgres does not answer, and no cache knows the order.
    #[error("no tier can answer")]
    Unavailable,
}

impl From<DatabaseError> for LookupError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Busy => Self::Overloaded,
            DatabaseError::Down | DatabaseError::Failed(_) => Self::Unavailable,
        }
    }
}

/// What a [`Lookup`] asks.
pub struct Tiers {
    /// The cache inside the process.
    pub local: Arc<LocalCache>,
    /// The cache that the replicas share; none where caches are switched off.
    pub redis: Option<Cache>,
    /// The truth.
    pub postgres: Postgres,
    /// Whether it answered the last health check.
    pub health: Dependency,
    /// A replica of it for lists, where there is one, and whether that answered.
    pub replica: Option<(Postgres, Dependency)>,
}

/// Finds orders; clones share everything.
#[derive(Clone)]
pub struct Lookup {
    inner: Arc<Inner>,
}

struct Inner {
    local: Arc<LocalCache>,
    redis: Option<Cache>,
    redis_usable: AtomicBool,
    database: Arc<Database>,
    lists: Arc<Database>,
    flights: Flights<(OrderUid, u64), Result<Answer, LookupError>>,
    fills: Arc<Semaphore>,
    metrics: Arc<CacheMetrics>,
}

impl Lookup {
    /// Asks the given tiers. Redis is passed by until [`Lookup::use_redis`].
    pub fn new(tiers: Tiers, metrics: Arc<CacheMetrics>) -> Self {
        let database = Arc::new(Database::new(tiers.postgres, tiers.health));
        let lists = match tiers.replica {
            Some((replica, health)) => Arc::new(Database::new(replica, health)),
            None => database.clone(),
        };
        let inner = Inner {
            local: tiers.local,
            redis: tiers.redis,
            redis_usable: AtomicBool::new(false),
            database,
            lists,
            flights: Flights::new(),
            fills: Arc::new(Semaphore::new(MAX_FILLS)),
            metrics,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether the content of Redis is fit to be served: not while it is being repaired. Once it is not, neither is what
    /// was loaded from there.
    pub fn use_redis(&self, usable: bool) {
        let was_usable = self.inner.redis_usable.swap(usable, Ordering::Relaxed);
        if was_usable && !usable {
            self.inner.local.drop_all();
        }
    }

    /// What the first tier that knows says about `uid`.
    ///
    /// # Errors
    /// When no tier can answer.
    pub async fn find(&self, uid: OrderUid, freshness: Freshness) -> Result<Found, LookupError> {
        let started = Instant::now();
        if freshness == Freshness::Cached
            && let Some(found) = self.look_locally(&uid, started)
        {
            return Ok(found);
        }
        // Boxed, so that an answer from the local cache does not carry the room for the others.
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
        let ticket = self.inner.local.begin(&uid);
        if freshness == Freshness::Cached
            && let Some(answer) = self.look_in_redis(&uid, ticket).await
        {
            return Ok((Source::Redis, answer));
        }
        let answer = match freshness {
            Freshness::Cached => self.look_in_postgres(uid, ticket).await?,
            // A load that is under way may have begun before what the caller knows of.
            Freshness::Current => {
                trace::in_span("postgres", Box::pin(self.load(uid, ticket))).await?
            }
        };
        Ok((Source::Postgres, answer))
    }

    /// A page of orders, from the read replica where there is one.
    ///
    /// # Errors
    /// When the database cannot answer.
    pub async fn list(&self, filter: &ListFilter, limit: u32) -> Result<Vec<Summary>, LookupError> {
        let list = |postgres: Postgres| async move { postgres.list(filter, limit).await };
        Ok(trace::in_span("postgres", self.inner.lists.run(list)).await?)
    }

    /// Loads the newest `limit` orders into the local cache; returns how many it holds of them.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn warm_up(&self, limit: u32) -> Result<usize, DatabaseError> {
        let local = &self.inner.local;
        let ticket = local.begin_any();
        let rows = self
            .inner
            .database
            .run(|postgres| async move { postgres.newest(limit).await })
            .await?;
        // The newest last: should they not all fit, those stay.
        let kept = rows.iter().rev().filter(|row| {
            let ticket = local.ticket_of(&row.uid, &ticket);
            local.insert(row.uid, Answer::from_row(Some(row)), ticket)
                == crate::local_cache::Insertion::Kept
        });
        Ok(kept.count())
    }

    fn look_locally(&self, uid: &OrderUid, started: Instant) -> Option<Found> {
        let metrics = &self.inner.metrics;
        let answer = trace::in_span_sync("local cache", || self.inner.local.get(uid, started));
        let took = started.elapsed();
        metrics.local_get.observe(took.as_secs_f64());
        metrics.local(match &answer {
            Some(Answer::Order(_) | Answer::Erased(_)) => LocalResult::Hit,
            Some(Answer::Unknown) => LocalResult::Negative,
            None => LocalResult::Miss,
        });
        Some(Found {
            answer: answer?,
            source: Source::Local,
            took,
        })
    }

    async fn look_in_redis(&self, uid: &OrderUid, ticket: Ticket) -> Option<Answer> {
        let (result, answer) = trace::in_span("redis", self.ask_redis(uid)).await;
        self.inner.metrics.redis(result);
        let answer = answer?;
        self.inner.local.insert(*uid, answer.clone(), ticket);
        Some(answer)
    }

    /// A cache that fails must not fail the look-up, so what went wrong is only counted.
    async fn ask_redis(&self, uid: &OrderUid) -> (RedisResult, Option<Answer>) {
        let Some(redis) = self
            .inner
            .redis
            .as_ref()
            .filter(|_| self.inner.redis_usable.load(Ordering::Relaxed))
        else {
            return (RedisResult::Bypass, None);
        };
        match redis.get(uid).await {
            Ok(Some(cached)) => (
                RedisResult::Hit,
                Some(Answer::new(cached.version, cached.document.as_deref())),
            ),
            Ok(None) => (RedisResult::Miss, None),
            Err(CacheError::Open) => (RedisResult::Bypass, None),
            Err(CacheError::Corrupt) => (RedisResult::Corrupt, None),
            Err(
                CacheError::Deadline(_)
                | CacheError::Connection(_)
                | CacheError::Refused(_)
                | CacheError::Misplaced,
            ) => (RedisResult::Error, None),
        }
    }

    async fn look_in_postgres(&self, uid: OrderUid, ticket: Ticket) -> Result<Answer, LookupError> {
        // The generation is part of the key: who asks after an announcement must not be answered by a load from before it.
        let key = (uid, ticket.generation());
        let lookup = self.clone();
        let load = move || {
            trace::carried(async move {
                // Since the caller looked there, another load may have come to its end.
                if let Some(answer) = lookup.inner.local.get(&uid, Instant::now()) {
                    return Ok(answer);
                }
                trace::in_span("postgres", lookup.load(uid, ticket)).await
            })
        };
        self.inner
            .flights
            .join(key, load)
            .await
            .unwrap_or(Err(LookupError::Unavailable))
    }

    async fn load(&self, uid: OrderUid, ticket: Ticket) -> Result<Answer, LookupError> {
        let read_at = Instant::now();
        let read = |postgres: Postgres| async move { postgres.read(&uid).await };
        let row = self.inner.database.run(read).await?;
        let answer = Answer::from_row(row.as_ref());
        self.inner.local.insert(uid, answer.clone(), ticket);
        if let Some(row) = row {
            self.fill_redis(row, read_at);
        }
        Ok(answer)
    }

    /// Writes the row back to Redis, behind the answer's back.
    fn fill_redis(&self, row: Revision, read_at: Instant) {
        let Some(redis) = self.inner.redis.clone() else {
            return;
        };
        let Ok(permit) = self.inner.fills.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            // What cannot be written is read from Postgres again; Redis' failure is told by its own health check.
            if let Err(error) = redis.fill(&row, read_at).await {
                tracing::debug!(%error, order_uid = %row.uid, "Redis was not filled");
            }
            drop(permit);
        });
    }
}
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;
    use shared::{config, storage::Role};

    use super::*;
    use crate::{local_cache::Settings, metrics::Metrics};

    /// Every read moves its future about and allocates it once; room for what is rarely done (connecting, tracing) belongs
    /// into boxes. It was 28 kB once, and a read from Redis took a third longer.
    #[tokio::test]
    async fn the_future_of_a_read_is_small() {
        let settings = Settings {
            max_bytes: 0,
            ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
        };
        let tiers = Tiers {
            local: Arc::new(LocalCache::new(settings)),
            redis: Some(Cache::shared(&config::Redis::default()).unwrap()),
            postgres: Postgres::new(
                "postgres://nobody@localhost:1/none",
                &config::Database::default(),
                Role::Api,
            )
            .unwrap(),
            health: Dependency::new("postgres", "db_up"),
            replica: None,
        };
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let lookup = Lookup::new(tiers, metrics.cache);
        let uid = || OrderUid::parse("u").unwrap();
        let (local, other) = (
            size_of_val(&lookup.find(uid(), Freshness::Cached)),
            size_of_val(&lookup.find_elsewhere(uid(), Freshness::Cached)),
        );
        assert!(local < 300 && other < 1024, "{local}, {other}");
    }
}
