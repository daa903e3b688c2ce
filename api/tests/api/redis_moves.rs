//! A Redis whose host name moves to another server, and a Redis that rejects writes.

use std::time::Instant;

use shared::{
    DatabaseTime,
    cache::Cache,
    order::Revision,
    testing::{MovingRedis, TestRedis},
};

use crate::harness::{World, order};

/// Records `redis` as complete, as a worker does once a second.
async fn record_as_complete(world: &World, redis: &TestRedis) {
    let cache = Cache::pooled(&redis.config()).unwrap();
    let state = cache.probe().await.unwrap();
    let now = world.writer.now().await.unwrap();
    assert!(cache.move_watermark(state.watermark, now).await.unwrap());
    world
        .writer
        .remember_complete_cache(now, &state.servers)
        .await
        .unwrap();
}

async fn write(redis: &TestRedis, revision: &Revision) {
    let cache = Cache::shared(&redis.config()).unwrap();
    cache.fill(revision, Instant::now()).await.unwrap();
}

#[tokio::test]
async fn a_server_without_workers_is_bypassed_until_its_name_moves() {
    let (world, new) = (World::new().await, TestRedis::start());
    let old = &world.redis;
    let name = MovingRedis::to(old);
    let mut stored = order("moved");
    write(old, &world.store(&stored, 1).await).await;
    record_as_complete(&world, old).await;
    let replica = world
        .cold_replica_with(|config| config.redis = name.config(old.config()))
        .await;
    replica.wait_for_order_from("redis", &stored).await;
    replica.wait_for_check("announcements", "subscribed").await;

    // The workers continue with the new server. The old one still answers, but has no
    // announcements.
    stored.delivery_service = "other".into();
    write(&new, &world.store(&stored, 2).await).await;
    record_as_complete(&world, &new).await;
    replica.wait_for_check("redis", "another server").await;
    replica
        .wait_for_check("announcements", "not subscribed")
        .await;
    let answer = replica.order("moved").await;
    assert_eq!(answer.body, stored.to_json());
    assert_ne!(answer.source(), Some("redis"));
    assert_eq!(replica.probe("/readyz").await.status, 200);

    name.move_to(&new);
    replica.wait_for_check("redis", "up").await;
    replica.wait_for_check("announcements", "subscribed").await;
    let hits = replica.cache_requests("redis", "hit");
    replica.wait_for_order_from("local", &stored).await;
    stored.delivery_service = "third".into();
    write(&new, &world.store(&stored, 3).await).await;
    replica.wait_for_order_from("redis", &stored).await;
    assert!(replica.cache_requests("redis", "hit") > hits);
}

/// The same connection leads to older content: a loaded snapshot, or the copy of another server.
#[tokio::test]
async fn a_server_that_lost_writes_is_bypassed() {
    let world = World::new().await;
    let mut stored = order("lost");
    write(&world.redis, &world.store(&stored, 1).await).await;
    record_as_complete(&world, &world.redis).await;
    let replica = world
        .cold_replica_with(|config| config.local_cache.max_bytes = 0)
        .await;
    replica.wait_for_order_from("redis", &stored).await;
    stored.delivery_service = "other".into();
    world.store(&stored, 2).await;
    let cache = world.cache();
    let before = cache.probe().await.unwrap().watermark;
    assert!(cache.move_watermark(before, DatabaseTime(1)).await.unwrap());
    replica.wait_for_order_from("postgres", &stored).await;
    // A worker repairs it.
    write(&world.redis, &crate::harness::revision(&stored, 2)).await;
    record_as_complete(&world, &world.redis).await;
    replica.wait_for_check("redis", "up").await;
    replica.wait_for_order_from("redis", &stored).await;
}

#[tokio::test]
async fn a_replica_without_write_rights_reads_and_reports_read_only() {
    let world = World::new().await;
    let stored = order("read-only");
    write(&world.redis, &world.store(&stored, 1).await).await;
    let rights = "~order:* ~order-cache &order-changes +@all -@scripting";
    let user = world.redis.user("reader", rights).await;
    let replica = world
        .cold_replica_with(|config| {
            config.redis = user;
            config.local_cache.max_bytes = 0;
        })
        .await;
    replica.wait_for_check("redis", "read-only").await;
    replica.wait_for_order_from("redis", &stored).await;
    world.database.shut().await;
    replica.wait_for_check("postgres", "down").await;
    assert_eq!(replica.probe("/readyz").await.status, 200);
    assert_eq!(replica.order("read-only").await.source(), Some("redis"));
}
