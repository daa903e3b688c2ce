//! Redis: the cache that all replicas share.
//!
//! An entry is `order:{uid}`, a hash of `version` and `json`; an erased order has no `json`. It is written only by
//! compare-and-set on the version, and a write that meets no entry (nothing to compare with) only within a second of the
//! moment at which its row was read or committed. Whoever writes announces what it wrote.

mod announcement;
mod batcher;
mod breaker;
mod clock;
mod connection;
mod durations;
mod entry;
mod link;
mod state;
mod subscription;

pub use announcement::{Announcement, CHANNEL};
pub use entry::{Cached, WriteOutcome};
pub use state::{CacheState, Watermark};
pub use subscription::Subscription;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::RedisError;

use crate::{
    config::{self, ConfigError},
    runtime::outage::OutageLog,
};
use batcher::Batcher;
use breaker::Breaker;
use clock::Clock;
use connection::{Connection, Source};
use durations::Durations;

/// The shortest time between two renewals: thousands of calls may be rejected in it.
const RENEWAL: Duration = Duration::from_millis(500);

/// A call to Redis that failed. Its text holds no value of an entry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// Redis failed a moment ago and is left alone for a second.
    #[error("Redis failed a moment ago and is left alone")]
    Open,
    /// No answer in time.
    #[error("no answer from Redis within {0:?}")]
    Deadline(Duration),
    /// The connection could not be made or broke.
    #[error("connection to Redis: {0}")]
    Connection(String),
    /// Redis refused the command, with a code such as `READONLY` or `OOM`.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// Other workers write to another server: a write to this one would not be seen.
    #[error("this Redis is not the one that other workers write to")]
    Misplaced,
    /// What Redis holds under the key is not an entry of ours.
    #[error("not an entry of ours")]
    Corrupt,
}

impl CacheError {
    /// Whether Redis itself is out of reach, as opposed to refusing a command.
    fn is_outage(&self) -> bool {
        matches!(self, Self::Deadline(_) | Self::Connection(_))
    }

    /// Whether another server is the one to ask: this one is a replica, still loads its content, or has lost its cluster
    /// or its replicas. Other codes, such as `OOM`, `MISCONF` and `NOPERM`, come from the right server.
    fn is_misdirected(&self) -> bool {
        const CODES: [&str; 6] = [
            "READONLY",
            "MASTERDOWN",
            "LOADING",
            "NOREPLICAS",
            "CLUSTERDOWN",
            "MOVED",
        ];
        matches!(self, Self::Refused(text) if CODES.contains(&text.split(' ').next().unwrap_or_default()))
    }

    /// As [`CacheError::from`], with the text of the server. Only for commands whose arguments are constants: the text may
    /// quote them.
    fn with_text(error: RedisError) -> Self {
        let text = error.detail().map(str::to_owned);
        match (Self::from(error), text) {
            (Self::Refused(code), Some(text)) => Self::Refused(format!("{code} {text}")),
            (error, _) => error,
        }
    }
}

impl From<RedisError> for CacheError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some(code) => Self::Refused(code.to_owned()),
            None if matches!(
                error.kind(),
                redis::ErrorKind::UnexpectedReturnType | redis::ErrorKind::Parse
            ) =>
            {
                Self::Corrupt
            }
            // The kind, not the text: a server's text may quote arguments.
            None => Self::Connection(error.category().to_owned()),
        }
    }
}

/// Access to the cache; clones share connections, breaker and clock.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    /// For reads, where one connection serves them all.
    batcher: Option<Batcher>,
    /// When all connections were last replaced.
    renewed: Mutex<Option<Instant>>,
    /// Whether writes are rejected because other workers write to another server.
    misplaced: AtomicBool,
    /// Announcements that Redis rejects.
    announcements: OutageLog,
    timeout: Duration,
    ttl: Duration,
    breaker: Breaker,
    clock: Clock,
    durations: Durations,
}

impl Cache {
    /// A cache over one multiplexed connection that reconnects by itself: right for many small concurrent calls.
    ///
    /// # Errors
    /// When `REDIS_URL` is not one or several `redis://` or `rediss://` URLs.
    pub fn shared(config: &config::Redis) -> Result<Self, ConfigError> {
        Ok(Self::new(Source::shared(config)?, config))
    }

    /// A cache over a pool, for a few large pipelines at a time (a cluster is always multiplexed).
    ///
    /// # Errors
    /// When `REDIS_URL` is not one or several `redis://` or `rediss://` URLs.
    pub fn pooled(config: &config::Redis) -> Result<Self, ConfigError> {
        Ok(Self::new(Source::pooled(config)?, config))
    }

    fn new(source: Source, config: &config::Redis) -> Self {
        Self {
            inner: Arc::new(Inner {
                batcher: source.batcher(config.timeout),
                renewed: Mutex::default(),
                source,
                misplaced: AtomicBool::new(false),
                announcements: OutageLog::default(),
                timeout: config.timeout,
                ttl: config.order_ttl,
                breaker: Breaker::default(),
                clock: Clock::default(),
                durations: Durations::new(),
            }),
        }
    }

    /// Closes every connection, at most twice a second. The next call connects again and resolves the name of the server
    /// again.
    pub fn renew(&self) {
        let now = Instant::now();
        let mut renewed = self
            .inner
            .renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if renewed.is_none_or(|then| now.saturating_duration_since(then) >= RENEWAL) {
            *renewed = Some(now);
            self.inner.source.renew();
        }
    }

    /// Closes the connections to a single server, to find out whether its name leads to another one by now. Connections to a
    /// cluster stay: they follow it.
    pub fn resolve_again(&self) {
        if !self.inner.source.is_cluster() {
            self.renew();
        }
    }

    /// Rejects batches from now on, or accepts them again. Other workers write to another server, and what is written here
    /// would not be seen; a rejected write is marked for repair, so that another worker does it.
    pub fn set_misplaced(&self, misplaced: bool) {
        self.inner.misplaced.store(misplaced, Ordering::Relaxed);
    }

    async fn connection(&self) -> Result<Connection, CacheError> {
        self.inner.source.connection().await
    }

    /// Does `work` under the deadline of one command, unless the breaker is open.
    async fn run<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, CacheError>>,
    ) -> Result<T, CacheError> {
        let timeout = self.inner.timeout;
        let work = async {
            tokio::time::timeout(timeout, work)
                .await
                .unwrap_or(Err(CacheError::Deadline(timeout)))
        };
        self.attempt(operation, work).await
    }

    /// Does `work`, which has a deadline of its own, unless the breaker is open.
    async fn attempt<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, CacheError>>,
    ) -> Result<T, CacheError> {
        if !self.inner.breaker.admits() {
            return Err(CacheError::Open);
        }
        let started = Instant::now();
        let result = work.await;
        let answered = result.as_ref().err().is_none_or(|error| !error.is_outage());
        self.inner.breaker.record(answered);
        if !answered {
            self.inner.source.suspect();
        }
        if let Err(error) = &result {
            self.note(error);
        }
        self.inner.durations.record(operation, started.elapsed());
        result
    }

    /// Leaves a server that is not the one to ask.
    fn note(&self, error: &CacheError) {
        if error.is_misdirected() {
            self.renew();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::OrderUid;

    /// Every call must be able to run in a spawned task; a mistake would only show far away from here.
    #[tokio::test]
    async fn calls_can_be_spawned() {
        fn spawnable<F: Future + Send>(_: F) {}
        let cache = Cache::shared(&config::Redis::default()).unwrap();
        spawnable(cache.get(&OrderUid::parse("u").unwrap()));
        spawnable(cache.write_batch(&[], Instant::now()));
        spawnable(cache.probe());
        spawnable(cache.clear());
        spawnable(cache.remove_all());
    }
}
