use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::AsyncCommands;
use shared::{
    DatabaseTime,
    cache::Cache,
    config,
    order::{OrderUid, Revision, Version, sample::Generator},
    storage::{Change, ChangeSet, Postgres, Role},
    telemetry::{Dependency, OutageLog},
    testing::{TestDatabase, TestRedis, eventually},
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use worker::{
    metrics::Metrics,
    pipeline::{
        waits::Waits,
        write_through::{Fresh, WriteThrough},
    },
    repair::Repair,
};

pub(crate) struct World {
    database: TestDatabase,
    pub(crate) redis: TestRedis,
    pub(crate) postgres: Postgres,
    pub(crate) cache: Cache,
    write_through: WriteThrough,
    /// The state of Redis as the worker reports it.
    pub(crate) health: Dependency,
}

impl World {
    pub(crate) async fn new() -> Self {
        let redis = TestRedis::start();
        let config = redis.config();
        Self::with(redis, config).await
    }

    /// Creates a world with `redis`, which is reached through `config`.
    pub(crate) async fn with(redis: TestRedis, config: config::Redis) -> Self {
        let database = TestDatabase::migrated().await;
        let postgres = database.connect(Role::Worker);
        let cache = Cache::pooled(&config).unwrap();
        let write_through =
            WriteThrough::new(cache.clone(), postgres.clone(), Arc::new(Waits::new()));
        Self {
            database,
            redis,
            postgres,
            cache,
            write_through,
            health: Dependency::new("redis", "redis_up"),
        }
    }

    /// Waits until the worker reports Redis to be in `state`.
    pub(crate) async fn redis_is(&self, state: &str) {
        eventually(&format!("a Redis that is {state}"), async || {
            (self.health.state() == state).then_some(())
        })
        .await;
    }

    /// Runs a worker's repair until the guard is dropped.
    pub(crate) fn look_after(&self) -> (DropGuard, JoinHandle<()>) {
        let repair = Repair {
            postgres: self.postgres.clone(),
            cache: self.cache.clone(),
            write_through: self.write_through.clone(),
            redis: self.health.clone(),
            outage: OutageLog::default(),
            evictions: OutageLog::default(),
            database: Dependency::new("postgres", "db_up"),
            schema: Arc::default(),
            metrics: Metrics::new(),
        };
        let token = CancellationToken::new();
        let running = tokio::spawn(repair.run(token.clone()));
        (token.drop_guard(), running)
    }

    pub(crate) async fn write(&self, revisions: Vec<Revision>) {
        let fresh = Fresh {
            revisions,
            read_at: Instant::now(),
            cache_write: None,
        };
        self.write_through.write(fresh).await;
    }

    /// Stores `count` orders at `offset` in Postgres, without writing them to Redis.
    pub(crate) async fn store(&self, count: u64, offset: i64) -> Vec<Revision> {
        let changes = Generator::new(7, 1..=2)
            .take(count as usize)
            .map(|order| Change {
                uid: OrderUid::parse(&order.order_uid).unwrap(),
                version: Version::new(1, offset, 0),
                order: Some(Box::new(order)),
            });
        let (set, _) = ChangeSet::new(changes.collect());
        self.postgres.apply(&set).await.unwrap();
        let uids: Vec<OrderUid> = set
            .into_vec()
            .into_iter()
            .map(|change| change.uid)
            .collect();
        self.postgres.read_many(&uids).await.unwrap()
    }

    /// Makes Redis reject writes, as a full Redis with the policy `noeviction` does, or accept them
    /// again.
    async fn reject_writes(&self, reject: bool) {
        let mut connection = self.redis.connect().await;
        let limit = if reject { "1" } else { "0" };
        for (setting, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", limit)] {
            let _: () = redis::cmd("CONFIG")
                .arg("SET")
                .arg(setting)
                .arg(value)
                .query_async(&mut connection)
                .await
                .unwrap();
        }
    }

    pub(crate) async fn no_mark_is_left(&self) {
        eventually("no mark", async || {
            let marks = self.postgres.repair_marks(None, 1).await.unwrap();
            marks.is_empty().then_some(())
        })
        .await;
    }

    pub(crate) async fn watermark(&self) -> Option<DatabaseTime> {
        self.cache.probe().await.ok()?.watermark
    }

    /// Waits until Redis is known to be complete, writes some orders to it, then stops the repair.
    pub(crate) async fn be_complete_with_orders(&self) -> Vec<Revision> {
        let (stop, running) = self.look_after();
        eventually("a Redis that is complete", async || {
            self.postgres.cache_knowledge().await.unwrap().complete
        })
        .await;
        let orders = self.store(5, 1).await;
        self.write(orders.clone()).await;
        drop(stop);
        running.await.unwrap();
        assert!(self.holds(&orders).await);
        orders
    }

    pub(crate) async fn holds(&self, revisions: &[Revision]) -> bool {
        for revision in revisions {
            let entry = self.cache.get(&revision.uid).await.ok().flatten();
            if entry.is_none_or(|entry| {
                entry.version.version != revision.version || entry.document != revision.document
            }) {
                return false;
            }
        }
        true
    }
}

#[tokio::test]
async fn marks_are_repaired_and_cleared() {
    let world = World::new().await;
    let orders = world.store(700, 1).await;
    let uids: Vec<OrderUid> = orders.iter().map(|revision| revision.uid).collect();
    world.postgres.mark_for_repair(&uids).await.unwrap();
    let _looking = world.look_after();
    world.no_mark_is_left().await;
    assert!(world.holds(&orders).await);
}

#[tokio::test]
async fn unfinished_writes_of_a_dead_worker_are_repaired() {
    let world = World::new().await;
    let _looking = world.look_after();
    // The first look finds no watermark and deletes all entries in Redis.
    eventually("a watermark", async || world.watermark().await).await;
    let old = world.store(40, 1).await;
    world.write(old.clone()).await;
    assert!(world.holds(&old).await);
    // The update is not written to Redis.
    let new = world.store(40, 2).await;
    eventually("the update in Redis", async || {
        world.holds(&new).await.then_some(())
    })
    .await;
    eventually("no write under way", async || {
        let under_way: i64 = world
            .database
            .value("SELECT count(*) FROM cache_writes")
            .await;
        (under_way == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_write_that_redis_rejects_is_marked_until_redis_accepts_it() {
    let world = World::new().await;
    let orders = world.store(3, 1).await;
    world.cache.probe().await.unwrap();
    world.reject_writes(true).await;
    world.write(orders.clone()).await;
    assert_eq!(
        world.postgres.repair_marks(None, 10).await.unwrap().len(),
        3
    );
    let _looking = world.look_after();
    world.reject_writes(false).await;
    world.no_mark_is_left().await;
    assert!(world.holds(&orders).await);
}

/// A look ends at marks that Redis rejects, but later looks reach every mark.
#[tokio::test]
async fn marks_that_redis_rejected_are_repaired_from_any_position() {
    let world = World::new().await;
    world.be_complete_with_orders().await;
    let orders = world.store(1200, 2).await;
    let uids: Vec<OrderUid> = orders.iter().map(|revision| revision.uid).collect();
    world.postgres.mark_for_repair(&uids).await.unwrap();
    world.reject_writes(true).await;
    let _looking = world.look_after();
    // Long enough for one or two looks.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.reject_writes(false).await;
    world.no_mark_is_left().await;
    assert!(world.holds(&orders).await);
}

#[tokio::test]
async fn a_redis_restored_from_an_older_dump_is_repaired() {
    let world = World::new().await;
    let old = world.store(50, 1).await;
    world.write(old.clone()).await;
    let _looking = world.look_after();
    let before = eventually("a watermark", async || world.watermark().await).await;
    eventually("a watermark that moves", async || {
        world.watermark().await.filter(|now| *now > before)
    })
    .await;

    // Save what a dump of this moment would hold.
    let mut connection = world.redis.connect().await;
    let mut dump: Vec<(String, HashMap<String, Vec<u8>>)> = Vec::new();
    for key in connection.keys::<_, Vec<String>>("*").await.unwrap() {
        let fields = connection.hgetall(&key).await.unwrap();
        dump.push((key, fields));
    }
    // Write new versions after the dump.
    let new = world.store(50, 2).await;
    world.write(new.clone()).await;
    assert!(world.holds(&new).await);
    let after = world.watermark().await.unwrap();
    eventually("a watermark that moves", async || {
        world.watermark().await.filter(|now| *now > after)
    })
    .await;
    // Restore Redis from the dump, in one step.
    let mut restore = redis::pipe();
    restore.atomic().flushall();
    for (key, fields) in &dump {
        restore.hset_multiple(key, &fields.iter().collect::<Vec<_>>());
    }
    let _: () = restore.query_async(&mut connection).await.unwrap();
    eventually("Redis to equal Postgres", async || {
        world.holds(&new).await.then_some(())
    })
    .await;
}

/// Redis crashes and loses less than one step of the watermark.
#[tokio::test]
async fn another_redis_process_is_not_trusted_even_with_the_same_watermark() {
    let mut world = World::new().await;
    let _looking = world.look_after();
    eventually("a watermark", async || world.watermark().await).await;
    let new = world.store(5, 2).await;
    world.write(new.clone()).await;
    let lost = world.watermark().await.unwrap();
    world.redis.restart();
    // Its last snapshot held the watermark, but not the orders.
    let mut connection = world.redis.connect().await;
    let _: () = connection
        .hset("order-cache", "watermark", lost.0)
        .await
        .unwrap();
    eventually("Redis to equal Postgres", async || {
        world.holds(&new).await.then_some(())
    })
    .await;
}

/// At a high rate of orders, each start of a worker must not rewrite the changes of the last 30 s.
#[tokio::test]
async fn a_worker_that_starts_repairs_nothing_in_a_redis_that_lost_nothing() {
    let world = World::new().await;
    let orders = world.be_complete_with_orders().await;
    let mut connection = world.redis.connect().await;
    let key = format!("order:{}", orders[0].uid);
    assert_eq!(connection.del::<_, i64>(&key).await.unwrap(), 1);
    let before = world.watermark().await;
    let _looking = world.look_after();
    eventually("a watermark that moves", async || {
        world.watermark().await.filter(|now| Some(*now) > before)
    })
    .await;
    assert!(!connection.exists::<_, bool>(&key).await.unwrap());
}

#[tokio::test]
async fn a_worker_that_starts_repairs_what_redis_lost_before() {
    let mut world = World::new().await;
    let orders = world.be_complete_with_orders().await;
    let watermark = world.watermark().await.unwrap();
    world.redis.restart();
    let mut connection = world.redis.connect().await;
    let _: () = connection
        .hset("order-cache", "watermark", watermark.0)
        .await
        .unwrap();
    let _looking = world.look_after();
    eventually("Redis to equal Postgres", async || {
        world.holds(&orders).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_empty_redis_gets_a_watermark_and_earlier_entries_are_deleted() {
    let world = World::new().await;
    let orders = world.store(5, 1).await;
    world.write(orders.clone()).await;
    // The entries have no watermark, so their age is unknown.
    let _looking = world.look_after();
    eventually("a watermark", async || world.watermark().await).await;
    let mut connection = world.redis.connect().await;
    assert_eq!(
        connection.keys::<_, Vec<String>>("order:*").await.unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn too_many_changes_are_deleted_instead_of_rewritten() {
    let world = World::new().await;
    let stale = world.store(5, 1).await;
    world.write(stale).await;
    let long_ago = world.postgres.now().await.unwrap();
    assert!(world.cache.move_watermark(None, long_ago).await.unwrap());
    world
        .database
        .execute(
            "INSERT INTO orders (order_uid, track_number, entry, locale, internal_signature, \
                 customer_id, delivery_service, shard_key, sm_id, date_created, oof_shard, \
                 source_timestamp_ms, source_offset, source_partition, erased_at) \
             SELECT 'bulk-' || n, '', '', '', '', '', '', '', 0, 'epoch', '', 1, n, 1, now() \
             FROM generate_series(1, 100001) n",
        )
        .await;
    let _looking = world.look_after();
    eventually("a watermark that moves", async || {
        world.watermark().await.filter(|now| *now > long_ago)
    })
    .await;
    let mut connection = world.redis.connect().await;
    assert_eq!(
        connection.keys::<_, Vec<String>>("order:*").await.unwrap(),
        Vec::<String>::new()
    );
    assert!(!world.cache.probe().await.unwrap().bypass);
}

/// A watermark in the future would hide that Redis later returns with older content.
#[tokio::test]
async fn a_watermark_in_the_future_does_not_stay() {
    let world = World::new().await;
    let _looking = world.look_after();
    eventually("a watermark", async || world.watermark().await).await;
    let mut connection = world.redis.connect().await;
    let future = i64::MAX / 2;
    let _: () = connection
        .hset("order-cache", "watermark", future)
        .await
        .unwrap();
    eventually("a watermark of now", async || {
        let watermark = world.watermark().await?;
        let recorded = world.postgres.cache_knowledge().await.unwrap().complete?;
        (watermark.0 < future && recorded.until.0 < future).then_some(())
    })
    .await;
}
