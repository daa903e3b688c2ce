//! A database and a Redis for one test, and the actions of a worker on them.

use std::time::{Duration, Instant};

use api::config::Config;
use bytes::Bytes;
use redis::AsyncCommands;
use shared::{
    cache::Cache,
    order::{Order, Revision},
    storage::{CacheWrite, Change, ChangeSet, Postgres, Role},
    testing::{TestDatabase, TestRedis, eventually},
};

use super::{Replica, uid, version};

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) redis: TestRedis,
    pub(crate) writer: Postgres,
}

impl World {
    /// A world with the newest schema.
    pub(crate) async fn new() -> Self {
        Self::over(TestDatabase::migrated().await)
    }

    /// A world without a schema.
    pub(crate) async fn without_schema() -> Self {
        Self::over(TestDatabase::empty().await)
    }

    fn over(database: TestDatabase) -> Self {
        Self {
            writer: database.connect(Role::Worker),
            redis: TestRedis::start(),
            database,
        }
    }

    /// Stores `order` with the version of `offset` in Postgres only. Marks the write to Redis as
    /// finished, although Redis does not have it.
    pub(crate) async fn store(&self, order: &Order, offset: i64) -> Revision {
        let (revision, write) = self.apply(revision(order, offset), Some(order)).await;
        self.finish(write).await;
        revision
    }

    /// Stores new `orders` in one batch, each with the version of `offset`.
    pub(crate) async fn store_all(&self, orders: &[Order], offset: i64) {
        let changes = orders.iter().map(|order| Change {
            uid: uid(&order.order_uid),
            version: version(offset),
            order: Some(Box::new(order.clone())),
        });
        let (changes, _) = ChangeSet::new(changes.collect());
        let applied = self.writer.apply(&changes).await.unwrap();
        assert!(applied.won.iter().all(|won| *won) && applied.cache_write.is_none());
    }

    /// Stores `order` with the version of `offset` like a worker that dies right after the commit:
    /// the write to Redis stays unfinished.
    pub(crate) async fn store_and_die(&self, order: &Order, offset: i64) -> Revision {
        self.apply(revision(order, offset), Some(order)).await.0
    }

    /// Erases the order `name` with the version of `offset` in Postgres only. Marks the write to
    /// Redis as finished, although Redis does not have it.
    pub(crate) async fn erase(&self, name: &str, offset: i64) -> Revision {
        let erased = Revision {
            uid: uid(name),
            version: version(offset),
            document: None,
        };
        let (erased, write) = self.apply(erased, None).await;
        self.finish(write).await;
        erased
    }

    async fn finish(&self, write: Option<CacheWrite>) {
        let writes = Vec::from_iter(write);
        self.writer.finish_cache_writes(&writes).await.unwrap();
    }

    async fn apply(
        &self,
        revision: Revision,
        order: Option<&Order>,
    ) -> (Revision, Option<CacheWrite>) {
        let change = Change {
            uid: revision.uid,
            version: revision.version,
            order: order.cloned().map(Box::new),
        };
        let changes = ChangeSet::new(vec![change]).0;
        let applied = self.writer.apply(&changes).await.unwrap();
        assert_eq!(applied.won, [true]);
        (revision, applied.cache_write)
    }

    /// Writes `revision` to Redis as if it had just been committed, which also announces it.
    pub(crate) async fn announce(&self, revision: &Revision) {
        self.cache().fill(revision, Instant::now()).await.unwrap();
    }

    /// A cache client like the one of a worker.
    pub(crate) fn cache(&self) -> Cache {
        Cache::shared(&self.redis.config()).unwrap()
    }

    /// The version of the order `uid` in Redis.
    pub(crate) async fn cached_version(&self, uid: &str) -> Option<String> {
        let mut redis = self.redis.connect().await;
        redis.hget(format!("order:{uid}"), "version").await.unwrap()
    }

    /// Waits until Redis holds the order `uid`.
    pub(crate) async fn wait_until_cached(&self, uid: &str) {
        let what = format!("{uid} in Redis");
        eventually(&what, async || self.cached_version(uid).await).await;
    }

    /// Number of reads from the api that wait for a lock in Postgres.
    pub(crate) async fn blocked_reads(&self) -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity \
                     WHERE datname = current_database() \
                     AND application_name = 'order-api' AND wait_event_type = 'Lock'";
        self.database.value(count).await
    }

    /// Waits until exactly `count` reads from the api wait for a lock in Postgres.
    pub(crate) async fn wait_for_blocked_reads(&self, count: i64) {
        eventually("reads that wait for the lock", async || {
            (self.blocked_reads().await == count).then_some(())
        })
        .await;
    }

    /// The configuration of a replica on free ports.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.api.addr = "127.0.0.1:0".to_owned();
        config.admin.addr = "127.0.0.1:0".to_owned();
        config.database.url = self.database.url_of(Role::Api);
        config.database.max_connections = 4;
        config.database.timeout = Some(Duration::from_secs(10));
        config.redis.url = self.redis.url();
        config.redis.timeout = Duration::from_secs(5);
        // Entries must not expire during a test on a slow machine. Tests of expiry set their own
        // values.
        config.local_cache.ttl = Duration::from_secs(600);
        config.negative_cache.ttl = Duration::from_secs(600);
        config.api.request_timeout = Duration::from_secs(30);
        // It would be in the output of the tests.
        config.api.access_log = Some(false);
        config
    }

    /// A replica that is ready.
    pub(crate) async fn replica(&self) -> Replica {
        self.replica_with(|_| ()).await
    }

    /// A replica that is ready and has skipped the warm-up.
    pub(crate) async fn cold_replica(&self) -> Replica {
        self.cold_replica_with(|_| ()).await
    }

    /// A ready replica whose configuration `configure` adjusts.
    pub(crate) async fn replica_with(&self, configure: impl FnOnce(&mut Config)) -> Replica {
        let mut config = self.config();
        configure(&mut config);
        Replica::start(config).await.ready().await
    }

    /// Like `cold_replica`, with a configuration that `configure` adjusts.
    pub(crate) async fn cold_replica_with(&self, configure: impl FnOnce(&mut Config)) -> Replica {
        self.replica_with(|config| {
            config.cache.warmup = 0;
            configure(config);
        })
        .await
    }
}

/// The revision in Postgres after `order` was stored with the version of `offset`.
pub(crate) fn revision(order: &Order, offset: i64) -> Revision {
    Revision {
        uid: uid(&order.order_uid),
        version: version(offset),
        document: Some(Bytes::from(order.to_json())),
    }
}
