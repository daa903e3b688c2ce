//! What a writer announces is seen by every replica.

use std::time::Instant;

use crate::harness::{Replica, World, document, eventually, order};

#[tokio::test]
async fn an_update_is_seen_by_every_replica_and_comes_from_redis() {
    let world = World::new().await;
    let mut stored = order("changing");
    world.database.store(&stored, 1).await;
    let replicas = [world.replica().await, world.replica().await];
    for replica in &replicas {
        assert_eq!(replica.order("changing").await.source(), Some("local"));
    }
    stored.delivery_service = "other".to_owned();
    let revision = world.database.store(&stored, 2).await;
    world
        .redis
        .cache()
        .fill(&revision, Instant::now())
        .await
        .unwrap();
    for replica in &replicas {
        eventually("the replica sees the update", || async {
            replica.order("changing").await.body == document(&stored)
        })
        .await;
    }
}

#[tokio::test]
async fn not_found_is_forgotten_when_the_order_arrives() {
    let world = World::new().await;
    let replicas = [world.replica().await, world.replica().await];
    for replica in &replicas {
        replica
            .order("late")
            .await
            .assert_problem(404, "order_not_found");
        assert_eq!(replica.order("late").await.source(), Some("local"));
    }
    let revision = world.database.store(&order("late"), 1).await;
    world
        .redis
        .cache()
        .fill(&revision, Instant::now())
        .await
        .unwrap();
    for replica in &replicas {
        eventually("the order is found", || async {
            replica.order("late").await.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn an_erasure_is_seen_by_every_replica() {
    let world = World::new().await;
    world.database.store(&order("private"), 1).await;
    let replicas = [world.replica().await, world.replica().await];
    let revision = world.database.erase("private", 2).await;
    world
        .redis
        .cache()
        .fill(&revision, Instant::now())
        .await
        .unwrap();
    for replica in &replicas {
        eventually("the order is gone", || async {
            replica.order("private").await.status == 410
        })
        .await;
    }
    let revision = world.database.store(&order("private"), 3).await;
    world
        .redis
        .cache()
        .fill(&revision, Instant::now())
        .await
        .unwrap();
    for replica in &replicas {
        eventually("the order is back", || async {
            replica.order("private").await.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn a_read_that_began_before_an_announcement_is_not_kept_and_answers_nobody_after_it() {
    let world = World::new().await;
    let mut config = world.config();
    config.cache.warmup = 0;
    let replica = Replica::start(config).await.ready().await;
    let mut stored = order("raced");
    world.database.store(&stored, 1).await;

    // A read that waits for a lock has its snapshot from before; the update is announced while it waits.
    let lock = world.database.lock().await;
    let slow = tokio::spawn(replica.request("GET", "/order/raced").send());
    eventually("the read waits", || async {
        world.database.waiting_sessions().await == 1
    })
    .await;
    stored.delivery_service = "other".to_owned();
    let newer = shared::order::Revision {
        uid: crate::harness::uid("raced"),
        version: crate::harness::version(2),
        document: Some(document(&stored)),
    };
    world
        .redis
        .cache()
        .fill(&newer, Instant::now())
        .await
        .unwrap();
    // Who asks now is not answered by the read that began before.
    eventually("a later question is answered by Redis", || async {
        let answer = replica.order("raced").await;
        answer.source() == Some("redis") && answer.body == document(&stored)
    })
    .await;
    drop(lock);
    assert_eq!(slow.await.unwrap().status, 200);
    let kept = replica.order("raced").await;
    kept.assert_order("local", &stored);
}
