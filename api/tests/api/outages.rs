//! What is answered while Redis or Postgres is down.

use std::time::{Duration, Instant};

use crate::harness::{Replica, World, document, eventually, order};

#[tokio::test]
async fn without_redis_orders_come_from_postgres_and_the_replica_stays_ready() {
    let world = World::new().await;
    let stored = order("steady");
    world.database.store(&stored, 1).await;
    let mut config = world.config();
    config.cache.warmup = 0;
    let replica = Replica::start(config).await.ready().await;
    world.redis.stop();
    let answer = replica.order("steady").await;
    assert_eq!((answer.status, answer.source()), (200, Some("postgres")));
    assert_eq!(answer.body, document(&stored));
    eventually("the loss is noticed", || async {
        replica.probe("/readyz").await.json()["checks"]
            .as_array()
            .is_some_and(|checks| {
                checks.contains(&serde_json::json!({"name": "redis", "state": "down"}))
            })
    })
    .await;
    assert_eq!(replica.probe("/readyz").await.status, 200);
    assert_eq!(replica.probe("/livez").await.status, 200);
}

#[tokio::test]
async fn the_local_cache_is_dropped_with_the_link_and_used_again_when_it_is_back() {
    let world = World::new().await;
    let mut stored = order("dropped");
    world.database.store(&stored, 1).await;
    let replica = world.replica().await;
    assert_eq!(replica.order("dropped").await.source(), Some("local"));
    world.redis.stop();
    // An update that nobody can announce.
    stored.delivery_service = "other".to_owned();
    world.database.store(&stored, 2).await;
    eventually("the update is seen without an announcement", || async {
        replica.order("dropped").await.body == document(&stored)
    })
    .await;
    world.redis.run().await;
    eventually("announcements are heard again", || async {
        replica.probe("/readyz").await.json()["checks"]
            .as_array()
            .is_some_and(|checks| {
                checks.contains(&serde_json::json!({"name": "announcements", "state": "heard"}))
            })
    })
    .await;
    stored.delivery_service = "third".to_owned();
    let revision = world.database.store(&stored, 3).await;
    world
        .redis
        .cache()
        .fill(&revision, Instant::now())
        .await
        .unwrap();
    eventually("the update is seen by announcement", || async {
        let answer = replica.order("dropped").await;
        answer.body == document(&stored) && answer.source() == Some("local")
    })
    .await;
}

#[tokio::test]
async fn without_postgres_the_caches_answer_and_the_rest_is_unavailable() {
    let world = World::new().await;
    world.database.store(&order("cached"), 1).await;
    let replica = world.replica().await;
    world.database.shut().await;
    assert_eq!(replica.order("cached").await.source(), Some("local"));
    let missing = replica.order("missing").await;
    missing.assert_problem(503, "unavailable");
    assert!(
        missing
            .header("retry-after")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
    );
    replica
        .get("/order/cached?nocache=1")
        .await
        .assert_problem(503, "unavailable");
    replica
        .get("/orders")
        .await
        .assert_problem(503, "unavailable");
    eventually("the loss is noticed", || async {
        replica.probe("/readyz").await.json()["checks"]
            .as_array()
            .is_some_and(|checks| {
                checks.contains(&serde_json::json!({"name": "postgres", "state": "down"}))
            })
    })
    .await;
    assert_eq!(replica.probe("/readyz").await.status, 200, "Redis answers");
    world.database.open().await;
    eventually("Postgres is asked again", || async {
        replica.order("missing").await.status == 404
    })
    .await;
}

#[tokio::test]
async fn without_both_only_what_is_cached_is_answered_and_the_replica_is_not_ready() {
    let world = World::new().await;
    world.database.store(&order("cached"), 1).await;
    let replica = world.replica().await;
    world.database.shut().await;
    assert_eq!(replica.order("cached").await.source(), Some("local"));
    world.redis.stop();
    eventually("the replica is not ready", || async {
        replica.probe("/readyz").await.status == 503
    })
    .await;
    let lost = replica.order("cached").await;
    lost.assert_problem(503, "unavailable");
    assert!(lost.header("retry-after").is_some());
    assert_eq!(replica.probe("/livez").await.status, 200);
}

#[tokio::test]
async fn connections_that_postgres_cut_cost_no_request() {
    let world = World::new().await;
    world.database.store(&order("steady"), 1).await;
    let replica = world.replica().await;
    assert_eq!(replica.get("/order/steady?nocache=1").await.status, 200);
    world.database.shut().await;
    world.database.open().await;
    eventually("Postgres counts as up", || async {
        replica.get("/order/steady?nocache=1").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_postgres_is_bounded_and_the_rest_is_refused_at_once() {
    let world = World::new().await;
    let mut config = world.config();
    config.cache.warmup = 0;
    config.database.max_connections = 2;
    config.database.timeout = Some(Duration::from_secs(60));
    config.api.request_timeout = Duration::from_secs(60);
    let replica = Replica::start(config).await.ready().await;
    let lock = world.database.lock().await;
    // One connection for requests, sixteen places to wait, and more who come than that.
    let requests: Vec<_> = (0..40)
        .map(|n| tokio::spawn(replica.request("GET", &format!("/order/queued-{n}")).send()))
        .collect();
    let refused = r#"http_requests_total{method="GET",route="/order/{order_uid}",status="503"}"#;
    eventually("what does not fit is refused", || async {
        replica.metric(refused) == 23.0
    })
    .await;
    drop(lock);
    let mut found = [0, 0];
    for request in requests {
        let answer = request.await.unwrap();
        match answer.status {
            404 => found[0] += 1,
            _ => {
                answer.assert_problem(503, "unavailable");
                assert!(answer.header("retry-after").is_some());
                found[1] += 1;
            }
        }
    }
    assert_eq!(found, [17, 23]);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let world = World::new().await;
    let mut config = world.config();
    config.cache.warmup = 0;
    config.database.timeout = Some(Duration::from_secs(60));
    config.api.request_timeout = Duration::from_millis(50);
    let replica = Replica::start(config).await.ready().await;
    let lock = world.database.lock().await;
    let late = replica.order("late").await;
    late.assert_problem(503, "timeout");
    assert!(late.header("retry-after").is_some());
    drop(lock);
}

#[tokio::test]
async fn redis_is_passed_by_while_it_is_repaired() {
    let world = World::new().await;
    let mut stored = order("repaired");
    let old = world.database.store(&stored, 1).await;
    world
        .redis
        .cache()
        .fill(&old, Instant::now())
        .await
        .unwrap();
    stored.delivery_service = "other".to_owned();
    world.database.store(&stored, 2).await;
    world.redis.cache().begin_bypass().await.unwrap();
    let mut config = world.config();
    config.cache.warmup = 0;
    let replica = Replica::start(config).await.ready().await;
    let answer = replica.order("repaired").await;
    answer.assert_order("postgres", &stored);
    assert_eq!(
        replica.metric(r#"cache_requests_total{result="bypass",tier="redis"}"#),
        1.0
    );
}

#[tokio::test]
async fn an_entry_that_is_not_ours_is_passed_by() {
    let world = World::new().await;
    let stored = order("corrupt");
    world.database.store(&stored, 1).await;
    let _: i64 = world
        .redis
        .command(&["HSET", "order:corrupt", "version", "rubbish", "json", "{}"])
        .await;
    let mut config = world.config();
    config.cache.warmup = 0;
    let replica = Replica::start(config).await.ready().await;
    let answer = replica.order("corrupt").await;
    answer.assert_order("postgres", &stored);
    assert_eq!(
        replica.metric(r#"cache_requests_total{result="corrupt",tier="redis"}"#),
        1.0
    );
}
