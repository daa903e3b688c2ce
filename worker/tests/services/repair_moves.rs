//! A Redis that evicts its watermark, moves to another server, or rejects commands that a write
//! needs.

use redis::{AsyncCommands, Pipeline, aio::MultiplexedConnection};
use shared::testing::{MovingRedis, TestRedis, eventually};

use super::repair::World;

/// An entry that is not in Postgres. It stays until a worker deletes our entries.
const CANARY: &str = "order:canary";

async fn put_canary(connection: &mut MultiplexedConnection) {
    let _: () = connection
        .hset(CANARY, "version", "of no order")
        .await
        .unwrap();
}

/// Evicts the keys that expire, as a full Redis does.
fn evict_what_expires(pipeline: &mut Pipeline) {
    for (setting, value) in [
        ("maxmemory-policy", "volatile-lru"),
        ("maxmemory", "1"),
        // Redis evicts before it runs the next command.
        ("maxmemory", "0"),
    ] {
        pipeline.cmd("CONFIG").arg(&["SET", setting, value]);
    }
}

#[tokio::test]
async fn a_watermark_that_was_evicted_is_written_again_and_no_entry_is_deleted() {
    let world = World::new().await;
    let _looking = world.look_after();
    let mut connection = world.redis.connect().await;
    for _ in 0..3 {
        let before = eventually("a watermark", async || world.watermark().await).await;
        put_canary(&mut connection).await;
        // Wait until the worker has seen the watermark.
        eventually("a watermark that moves", async || {
            world.watermark().await.filter(|now| *now > before)
        })
        .await;
        let mut eviction = redis::pipe();
        eviction.cmd("PEXPIRE").arg(&["order-cache", "3600000"]);
        evict_what_expires(&mut eviction);
        eviction.exists("order-cache");
        let replies: Vec<redis::Value> = eviction.query_async(&mut connection).await.unwrap();
        assert_eq!(replies.last(), Some(&redis::Value::Int(0)), "evicted");
        let evicted_at = world.postgres.now().await.unwrap();
        eventually("a watermark that moves on", async || {
            world.watermark().await.filter(|now| *now > evicted_at)
        })
        .await;
        assert!(connection.exists::<_, bool>(CANARY).await.unwrap());
    }
}

/// The process is the same and has evicted keys, but its content comes from another server.
#[tokio::test]
async fn entries_of_another_server_are_deleted_without_a_watermark() {
    let (world, other) = (World::new().await, TestRedis::start());
    put_canary(&mut other.connect().await).await;
    let _looking = world.look_after();
    eventually("a watermark", async || world.watermark().await).await;
    world.redis.replicate(Some(&other)).await;
    world.redis_is("read-only").await;
    let mut connection = world.redis.connect().await;
    assert!(connection.exists::<_, bool>(CANARY).await.unwrap());
    let mut promotion = redis::pipe();
    promotion.cmd("REPLICAOF").arg(&["NO", "ONE"]);
    promotion.set_ex("expires", 1, 3600);
    evict_what_expires(&mut promotion);
    let _: Vec<redis::Value> = promotion.query_async(&mut connection).await.unwrap();
    eventually("a watermark", async || world.watermark().await).await;
    assert!(!connection.exists::<_, bool>(CANARY).await.unwrap());
}

/// `worker cache clear` removes the watermark on purpose. A worker that finds it missing deletes
/// the remaining entries.
#[tokio::test]
async fn keys_removed_on_purpose_are_not_an_eviction() {
    let world = World::new().await;
    let _looking = world.look_after();
    eventually("a watermark", async || world.watermark().await).await;
    let mut connection = world.redis.connect().await;
    // The state after a `worker cache clear` that was interrupted.
    let mut removal = redis::pipe();
    removal.set_ex("expires", 1, 3600);
    evict_what_expires(&mut removal);
    removal.hset(CANARY, "version", "of no order");
    removal.hset("order-cache", "cleared", 1);
    removal
        .cmd("HDEL")
        .arg(&["order-cache", "watermark", "bypass"]);
    let _: Vec<redis::Value> = removal.query_async(&mut connection).await.unwrap();
    eventually("a watermark", async || world.watermark().await).await;
    assert!(!connection.exists::<_, bool>(CANARY).await.unwrap());
}

/// No command fails, because the old server accepts writes and its connections stay open.
#[tokio::test]
async fn a_worker_follows_a_name_that_moves_while_the_old_server_accepts_writes() {
    let (old, new) = (TestRedis::start(), TestRedis::start());
    let name = MovingRedis::to(&old);
    let config = name.config(old.config());
    let world = World::with(old, config).await;
    let _looking = world.look_after();
    eventually("a watermark", async || world.watermark().await).await;
    name.move_to(&new);
    let orders = world.store(5, 1).await;
    world.write(orders.clone()).await;
    let mut connection = new.connect().await;
    eventually("a watermark of the new server", async || {
        let watermark: Option<i64> = connection.hget("order-cache", "watermark").await.unwrap();
        watermark
    })
    .await;
    let orders = world.store(5, 2).await;
    world.write(orders.clone()).await;
    let key = format!("order:{}", orders[0].uid);
    assert!(connection.exists::<_, bool>(&key).await.unwrap());
    assert!(world.holds(&orders).await);
}

/// The worker does not write to that server although its connections work. It marks the orders, so
/// that other workers write them.
#[tokio::test]
async fn a_worker_at_a_server_that_others_left_marks_its_writes() {
    let world = World::new().await;
    let looking = world.look_after();
    eventually("a watermark", async || world.watermark().await).await;
    let author = world.postgres.clone();
    let others = tokio::spawn(async move {
        loop {
            let now = author.now().await.unwrap();
            let servers = ["another".to_owned()];
            author.remember_complete_cache(now, &servers).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    world.redis_is("another server").await;
    let orders = world.store(3, 2).await;
    world.write(orders.clone()).await;
    assert!(!world.holds(&orders).await);
    let marks = world.postgres.repair_marks(None, 10).await.unwrap();
    assert_eq!(marks.len(), 3);
    // The other workers end, so this one must continue.
    others.abort();
    world.no_mark_is_left().await;
    assert!(world.holds(&orders).await);
    world.redis_is("up").await;
    drop(looking);
}

#[tokio::test]
async fn a_redis_that_rejects_scripts_is_not_up() {
    let redis = TestRedis::start();
    let rights = "~order:* ~order-cache &order-changes +@all";
    let config = redis.user("worker", &format!("{rights} -@scripting")).await;
    let world = World::with(redis, config).await;
    let _looking = world.look_after();
    world.redis_is("read-only").await;
    assert!(!world.health.is_up());
    world.redis.user("worker", rights).await;
    world.redis_is("up").await;
    eventually("a watermark", async || world.watermark().await).await;
}
