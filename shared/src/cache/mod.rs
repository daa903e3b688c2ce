//! Redis: the cache that all replicas share.
//!
//! An entry is the hash `order:{uid}` with the fields `version` and `json`, and `mac` if there is a
//! key ([`MacKeys`]); an erased order has no `json`. Every reader checks what it finds.
//!
//! Entries are written only by compare-and-set on the version. A missing entry has no version to
//! compare with, so a write creates an entry only within a second of the moment at which its row
//! was read or committed. Each writer announces what it wrote.
//!
//! The field `version` is a [`DocumentVersion`](crate::order::DocumentVersion): it also names the
//! shape of the document. An entry of an older shape is overwritten, and counts as missing for a
//! reader.

mod access;
mod acl;
mod announcement;
mod breaker;
mod check;
mod clock;
mod connection;
mod durations;
mod entry;
mod follow;
mod inspect;
mod link;
mod mac;
mod read;
mod read_pipeline;
mod scan;
mod state;
mod subscription;

pub use acl::acl;
#[cfg(any(test, fuzzing))]
pub(crate) use announcement::decode as decode_announcements;
pub use announcement::{Announcement, CHANNEL};
pub use check::Cached;
pub use entry::WriteOutcome;
pub use inspect::Held;
pub use mac::MacKeys;
pub use scan::KeyScan;
pub use state::CacheState;
pub use subscription::Subscription;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use opentelemetry::metrics::Counter;
use parking_lot::Mutex;
use redis::RedisError;

use crate::{
    config::{self, ConfigError},
    order::REPRESENTATION,
    telemetry::{OutageLog, metrics::meter},
};
use access::Access;
use breaker::Breaker;
use clock::Clock;
use connection::{Connection, Connections};
use durations::Durations;
use read_pipeline::ReadPipeline;

/// Minimum time between two renewals, because thousands of calls may be rejected at once.
const RENEWAL: Duration = Duration::from_millis(500);

/// A failed call to Redis. Its text contains no value of an entry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// The breaker is open: Redis failed a moment ago, so no call is made for a second.
    #[error("Redis failed less than a second ago; no call was made")]
    Open,
    /// Redis did not answer in time.
    #[error("no answer from Redis within {0:?}")]
    Deadline(Duration),
    /// The connection could not be opened, or it broke.
    #[error("connection to Redis: {0}")]
    Connection(String),
    /// Redis rejected the command, with a code such as `READONLY` or `OOM`.
    #[error("Redis rejected the command: {0}")]
    Rejected(String),
    /// Other workers write to another server, so readers would not see a write to this one.
    #[error("this Redis is not the one that other workers write to")]
    Misplaced,
    /// The key holds something other than an order entry.
    #[error("the key does not hold an order entry")]
    Corrupt,
    /// The entry has no right MAC, so it may be forged.
    #[error("the MAC of the entry is missing or wrong")]
    Unverified,
}

impl CacheError {
    /// Returns whether Redis cannot be reached, as opposed to rejecting a command.
    fn is_outage(&self) -> bool {
        matches!(self, Self::Deadline(_) | Self::Connection(_))
    }

    /// Returns whether the key holds another type than a hash.
    fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Rejected(code) if code == "WRONGTYPE")
    }

    /// Returns whether the call reached the wrong server: a replica, a server that still loads its
    /// content, or one that lost its cluster or its replicas. Other codes, such as `OOM`, `MISCONF`
    /// and `NOPERM`, come from the right server.
    fn is_misdirected(&self) -> bool {
        const CODES: [&str; 6] = [
            "READONLY",
            "MASTERDOWN",
            "LOADING",
            "NOREPLICAS",
            "CLUSTERDOWN",
            "MOVED",
        ];
        let Self::Rejected(text) = self else {
            return false;
        };
        CODES.contains(&text.split(' ').next().unwrap_or_default())
    }

    /// Converts like [`CacheError::from`], and adds the text of the server. Use it only for
    /// commands whose arguments are constants, because the text may quote them.
    fn with_text(error: RedisError) -> Self {
        let text = error.detail().map(str::to_owned);
        match (Self::from(error), text) {
            (Self::Rejected(code), Some(text)) => Self::Rejected(format!("{code} {text}")),
            (error, _) => error,
        }
    }
}

impl From<RedisError> for CacheError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some(code) => Self::Rejected(code.to_owned()),
            None if matches!(
                error.kind(),
                redis::ErrorKind::UnexpectedReturnType | redis::ErrorKind::Parse
            ) =>
            {
                Self::Corrupt
            }
            None => Self::Connection(access::cause(&error)),
        }
    }
}

/// The cache in Redis. Clones share connections, breaker and clock.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    /// Shape of the documents that this program writes.
    representation: u8,
    /// Keys for the MAC of entries; none if entries need no MAC.
    mac_keys: Option<Arc<MacKeys>>,
}

struct Inner {
    connections: Connections,
    /// Batches reads if one connection serves them all.
    reads: Option<ReadPipeline>,
    /// When all connections were last replaced.
    renewed: Mutex<Option<Instant>>,
    /// Whether writes are rejected because other workers write to another server.
    misplaced: AtomicBool,
    /// Tracks whether Redis rejects announcements.
    announcements: OutageLog,
    /// Limits the log of entries that are not ours.
    rejections: OutageLog,
    /// Limits the log of entries that were newer than Postgres.
    replacements: OutageLog,
    /// Counts them.
    replaced: Counter<u64>,
    timeout: Duration,
    ttl: Duration,
    breaker: Breaker,
    clock: Clock,
    durations: Durations,
}

impl Cache {
    /// Creates a cache over one multiplexed connection that reconnects by itself. It suits many
    /// small concurrent calls.
    ///
    /// # Errors
    /// When `REDIS_URL` is not one or more `redis://` or `rediss://` URLs, a certificate file
    /// cannot be used, or the timeout is zero.
    pub fn shared(config: &config::Redis) -> Result<Self, ConfigError> {
        let access = Access::new(config);
        let connections = Connections::shared(&access, config.timeout)?;
        Ok(Self::new(connections, access, config))
    }

    /// Creates a cache over a pool, for a few large pipelines at a time. A cluster is always
    /// multiplexed.
    ///
    /// # Errors
    /// As [`Cache::shared`].
    pub fn pooled(config: &config::Redis) -> Result<Self, ConfigError> {
        let access = Access::new(config);
        let connections = Connections::pooled(&access, config.timeout)?;
        Ok(Self::new(connections, access, config))
    }

    fn new(connections: Connections, access: Access, config: &config::Redis) -> Self {
        let replaced = meter()
            .u64_counter("cache_entries_ahead_total")
            .with_description("Entries of Redis that were newer than Postgres and were replaced")
            .build();
        replaced.add(0, &[]);
        let cache = Self {
            representation: REPRESENTATION,
            mac_keys: None,
            inner: Arc::new(Inner {
                reads: connections.read_pipeline(config.timeout),
                renewed: Mutex::default(),
                connections,
                misplaced: AtomicBool::new(false),
                announcements: OutageLog::default(),
                rejections: OutageLog::default(),
                replacements: OutageLog::default(),
                replaced,
                timeout: config.timeout,
                ttl: config.order_ttl,
                breaker: Breaker::default(),
                clock: Clock::default(),
                durations: Durations::new(),
            }),
        };
        follow::start(&cache.inner, access);
        cache
    }

    /// Returns the cache with `keys`: it signs what it writes, and rejects what they did not sign.
    /// Without keys it does neither.
    #[must_use]
    pub fn with_mac_keys(self, keys: Option<MacKeys>) -> Self {
        Self {
            mac_keys: keys.map(Arc::new),
            ..self
        }
    }

    /// Returns the cache as a program whose documents have the shape `representation` uses it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_representation(self, representation: u8) -> Self {
        Self {
            representation,
            ..self
        }
    }

    /// Replaces every connection, at most twice a second. The next call connects again and resolves
    /// the name of the server again.
    pub fn renew(&self) {
        let now = Instant::now();
        let mut renewed = self.inner.renewed.lock();
        if renewed.is_none_or(|then| now.saturating_duration_since(then) >= RENEWAL) {
            *renewed = Some(now);
            self.inner.connections.renew();
        }
    }

    /// Replaces the connections to a single server, in case its name now resolves to another
    /// server. Keeps connections to a cluster, because they follow it.
    pub fn resolve_again(&self) {
        if !self.inner.connections.is_cluster() {
            self.renew();
        }
    }

    /// Starts or stops rejecting batches. While other workers write to another server, readers
    /// would not see what this worker writes. A rejected write gets a repair mark, and another
    /// worker repairs it.
    pub fn set_misplaced(&self, misplaced: bool) {
        self.inner.misplaced.store(misplaced, Ordering::Relaxed);
    }

    async fn connection(&self) -> Result<Connection, CacheError> {
        self.inner.connections.connection().await
    }

    /// Runs `work` with the deadline of one command, unless the breaker is open.
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

    /// Runs `work`, which has its own deadline, unless the breaker is open.
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
            self.inner.connections.suspect();
        }
        if let Err(error) = &result {
            self.note(error);
        }
        self.inner.durations.record(operation, started.elapsed());
        result
    }

    /// Replaces the connections if `error` shows that they lead to the wrong server.
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

    /// Checks that every call can run in a spawned task. Otherwise the compiler would report the
    /// mistake far from its cause.
    #[tokio::test]
    async fn calls_can_be_spawned() {
        fn spawnable<F: Future + Send>(_: F) {}
        let cache = Cache::shared(&config::Redis::default()).unwrap();
        spawnable(cache.get(&OrderUid::parse("u").unwrap()));
        spawnable(cache.get_many(&[]));
        spawnable(cache.write_batch(&[], Instant::now()));
        spawnable(cache.probe());
        spawnable(cache.clear());
        spawnable(cache.remove_all());
    }
}
