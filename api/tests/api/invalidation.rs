//! An announcement invalidates the local cache of every replica.

use crate::harness::{World, order, revision};

#[tokio::test]
async fn an_update_reaches_every_replica_through_redis() {
    let world = World::new().await;
    let mut stored = order("changing");
    world.store(&stored, 1).await;
    let replicas = [world.replica().await, world.replica().await];
    for replica in &replicas {
        replica.wait_for_order_from("local", &stored).await;
    }
    stored.delivery_service = "other".into();
    let revision = world.store(&stored, 2).await;
    world.announce(&revision).await;
    for replica in &replicas {
        replica.wait_for_order(&stored).await;
        assert!(replica.cache_requests("redis", "hit") >= 1.0);
    }
}

#[tokio::test]
async fn a_negative_entry_is_dropped_when_the_order_arrives() {
    let world = World::new().await;
    let replicas = [world.replica().await, world.replica().await];
    for replica in &replicas {
        replica
            .order("late")
            .await
            .assert_problem(404, "order_not_found");
        assert_eq!(replica.order("late").await.source(), Some("local"));
    }
    let revision = world.store(&order("late"), 1).await;
    world.announce(&revision).await;
    for replica in &replicas {
        replica.wait_for_status("/order/late", 200).await;
    }
}

#[tokio::test]
async fn an_erasure_reaches_every_replica() {
    let world = World::new().await;
    world.store(&order("private"), 1).await;
    let replicas = [world.replica().await, world.replica().await];
    let revision = world.erase("private", 2).await;
    world.announce(&revision).await;
    for replica in &replicas {
        replica.wait_for_status("/order/private", 410).await;
    }
    let revision = world.store(&order("private"), 3).await;
    world.announce(&revision).await;
    for replica in &replicas {
        replica.wait_for_status("/order/private", 200).await;
    }
}

#[tokio::test]
async fn a_read_from_before_an_announcement_is_neither_cached_nor_shared() {
    let world = World::new().await;
    let replica = world.cold_replica().await;
    let mut stored = order("raced");
    world.store(&stored, 1).await;

    // A read that waits for a lock has an older snapshot. The announcement arrives while it waits.
    let lock = world.database.lock("orders").await;
    let slow = tokio::spawn(replica.request("GET", "/order/raced").send());
    world.wait_for_blocked_reads(1).await;
    stored.delivery_service = "other".into();
    world.announce(&revision(&stored, 2)).await;
    // A request from now on does not share the older read.
    replica.wait_for_order_from("redis", &stored).await;
    drop(lock);
    assert_eq!(slow.await.unwrap().status, 200);
    // An entry of the older read would be served for ten minutes. The newer one is served instead,
    // no matter when the announcement arrives.
    let next = replica.order("raced").await;
    assert_eq!(next.source(), Some("local"));
    assert_eq!(next.body, stored.to_json());
}

#[tokio::test]
async fn a_read_past_the_caches_does_not_share_an_earlier_read() {
    let world = World::new().await;
    let replica = world.cold_replica().await;
    world.store(&order("raced"), 1).await;
    let lock = world.database.lock("orders").await;
    let usual = tokio::spawn(replica.request("GET", "/order/raced").send());
    world.wait_for_blocked_reads(1).await;
    let current = tokio::spawn(replica.request("GET", "/order/raced?nocache=1").send());
    world.wait_for_blocked_reads(2).await;
    drop(lock);
    assert_eq!(usual.await.unwrap().status, 200);
    assert_eq!(current.await.unwrap().status, 200);
}
