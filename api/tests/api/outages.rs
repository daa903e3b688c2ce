//! Responses while Redis or Postgres is down.

use std::time::Duration;

use redis::AsyncCommands;
use shared::{order::Order, testing::eventually};

use crate::harness::{Replica, World, order};

#[tokio::test]
async fn without_redis_orders_come_from_postgres_and_the_replica_stays_ready() {
    let mut world = World::new().await;
    let stored = order("steady");
    world.store(&stored, 1).await;
    let replica = world.cold_replica().await;
    world.redis.kill();
    let answer = replica.order("steady").await;
    answer.assert_order("postgres", &stored);
    replica.wait_for_check("redis", "down").await;
    assert_eq!(replica.probe("/readyz").await.status, 200);
    assert_eq!(replica.probe("/livez").await.status, 200);
}

#[tokio::test]
async fn a_lost_subscription_drops_the_local_cache_until_it_is_back() {
    let mut world = World::new().await;
    let mut stored = order("dropped");
    world.store(&stored, 1).await;
    let replica = world.replica().await;
    replica.wait_for_order_from("local", &stored).await;
    world.redis.kill();
    // An update without an announcement.
    stored.delivery_service = "other".into();
    world.store(&stored, 2).await;
    replica.wait_for_order(&stored).await;
    world.redis.restart();
    replica.wait_for_check("announcements", "subscribed").await;
    stored.delivery_service = "third".into();
    let revision = world.store(&stored, 3).await;
    world.announce(&revision).await;
    replica.wait_for_order_from("local", &stored).await;
}

#[tokio::test]
async fn without_postgres_only_cached_orders_are_served() {
    let world = World::new().await;
    let cached = order("cached");
    world.store(&cached, 1).await;
    let replica = world.replica().await;
    replica.wait_for_order_from("local", &cached).await;
    world.database.shut().await;
    assert_eq!(replica.order("cached").await.source(), Some("local"));
    let missing = replica.order("missing").await;
    missing.assert_temporary_problem(503, "unavailable");
    for path in ["/order/cached?nocache=1", "/orders"] {
        let failed = replica.get(path).await;
        failed.assert_temporary_problem(503, "unavailable");
    }
    replica.wait_for_check("postgres", "down").await;
    assert_eq!(replica.probe("/readyz").await.status, 200, "Redis answers");
    world.database.open().await;
    replica.wait_for_status("/order/missing", 404).await;
}

#[tokio::test]
async fn without_postgres_and_redis_the_replica_is_not_ready() {
    let mut world = World::new().await;
    let cached = order("cached");
    world.store(&cached, 1).await;
    let replica = world.replica().await;
    replica.wait_for_order_from("local", &cached).await;
    world.database.shut().await;
    assert_eq!(replica.order("cached").await.source(), Some("local"));
    world.redis.kill();
    replica.wait_for_readiness(503).await;
    let lost = replica.order("cached").await;
    lost.assert_temporary_problem(503, "unavailable");
    assert_eq!(replica.probe("/livez").await.status, 200);
}

#[tokio::test]
async fn closed_connections_to_postgres_fail_no_request() {
    let world = World::new().await;
    world.store(&order("steady"), 1).await;
    let replica = world.replica().await;
    assert_eq!(replica.get("/order/steady?nocache=1").await.status, 200);
    world.database.shut().await;
    world.database.open().await;
    replica
        .wait_for_status("/order/steady?nocache=1", 200)
        .await;
}

#[tokio::test]
async fn a_full_queue_for_postgres_rejects_requests_at_once() {
    let world = World::new().await;
    let replica = world
        .cold_replica_with(|config| {
            config.database.max_connections = 2;
            config.database.timeout = Some(Duration::from_secs(60));
            config.api.request_timeout = Duration::from_secs(60);
        })
        .await;
    let lock = world.database.lock("orders").await;
    // One connection for requests and 16 places in the queue, and more requests than that.
    let requests: Vec<_> = (0..40)
        .map(|n| tokio::spawn(replica.request("GET", &format!("/order/queued-{n}")).send()))
        .collect();
    eventually("23 rejected requests", async || {
        (replica.order_requests("GET", 503) == 23.0).then_some(())
    })
    .await;
    drop(lock);
    let mut found = [0, 0];
    for request in requests {
        let answer = request.await.unwrap();
        match answer.status {
            404 => found[0] += 1,
            _ => {
                answer.assert_temporary_problem(503, "unavailable");
                found[1] += 1;
            }
        }
    }
    assert_eq!(found, [17, 23]);
}

#[tokio::test]
async fn a_request_times_out() {
    let world = World::new().await;
    let replica = world
        .cold_replica_with(|config| {
            config.database.timeout = Some(Duration::from_secs(60));
            config.api.request_timeout = Duration::from_millis(50);
        })
        .await;
    let lock = world.database.lock("orders").await;
    let late = replica.order("late").await;
    late.assert_temporary_problem(503, "timeout");
    drop(lock);
}

#[tokio::test]
async fn redis_is_bypassed_during_a_repair() {
    let world = World::new().await;
    let mut stored = order("repaired");
    let old = world.store(&stored, 1).await;
    world.announce(&old).await;
    stored.delivery_service = "other".into();
    world.store(&stored, 2).await;
    world.cache().begin_bypass().await.unwrap();
    let replica = world.cold_replica().await;
    let answer = replica.order("repaired").await;
    answer.assert_order("postgres", &stored);
    assert_eq!(replica.cache_requests("redis", "bypass"), 1.0);
}

/// A replica without a local cache that has just returned `stored` from Redis.
async fn replica_that_reads_redis(world: &World, stored: &Order) -> Replica {
    let revision = world.store(stored, 1).await;
    world.announce(&revision).await;
    let replica = world
        .cold_replica_with(|config| config.local_cache.max_bytes = 0)
        .await;
    replica.wait_for_order_from("redis", stored).await;
    replica
}

#[tokio::test]
async fn redis_is_bypassed_while_a_repair_is_overdue() {
    let world = World::new().await;
    let mut stored = order("cut-off");
    let replica = replica_that_reads_redis(&world, &stored).await;
    stored.delivery_service = "other".into();
    world.store(&stored, 2).await;
    world
        .database
        .execute(
            "INSERT INTO cache_repairs (order_uid, marked_at) \
             VALUES ('cut-off', now() - interval '1 hour')",
        )
        .await;
    replica.wait_for_order(&stored).await;
}

/// A Redis that lacks changes stays bypassed while Postgres does not answer.
#[tokio::test]
async fn an_outdated_redis_stays_bypassed_while_postgres_does_not_answer() {
    let world = World::new().await;
    let mut stored = order("silent");
    let replica = replica_that_reads_redis(&world, &stored).await;
    stored.delivery_service = "other".into();
    world.store(&stored, 2).await;
    world
        .database
        .execute(
            "INSERT INTO cache_repairs (order_uid, marked_at) \
             VALUES ('silent', now() - interval '1 hour')",
        )
        .await;
    replica.wait_for_order(&stored).await;
    // The health check waits for the lock and fails. After that, no request waits for Postgres.
    let lock = world.database.lock("cache_repairs").await;
    replica.wait_for_check("postgres", "down").await;
    let answer = replica.order("silent").await;
    answer.assert_temporary_problem(503, "unavailable");
    drop(lock);
    replica.wait_for_order(&stored).await;
}

#[tokio::test]
async fn redis_is_bypassed_while_a_write_of_a_dead_worker_is_unfinished() {
    let world = World::new().await;
    let mut stored = order("left-behind");
    let replica = replica_that_reads_redis(&world, &stored).await;
    stored.delivery_service = "other".into();
    world.store_and_die(&stored, 2).await;
    replica.wait_for_order(&stored).await;
}

#[tokio::test]
async fn a_corrupt_entry_is_bypassed() {
    let world = World::new().await;
    let stored = order("corrupt");
    world.store(&stored, 1).await;
    let mut redis = world.redis.connect().await;
    let fields = [("version", "rubbish"), ("json", "{}")];
    let () = redis.hset_multiple("order:corrupt", &fields).await.unwrap();
    let replica = world.cold_replica().await;
    let answer = replica.order("corrupt").await;
    answer.assert_order("postgres", &stored);
    assert_eq!(replica.cache_requests("redis", "corrupt"), 1.0);
}
