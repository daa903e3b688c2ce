//! `GET /order/{order_uid}`: tiers, headers, conditional requests, errors.

use std::time::Instant;

use crate::harness::{World, document, eventually, order, version};

#[tokio::test]
async fn an_order_comes_from_postgres_then_redis_then_the_local_cache_with_the_same_bytes() {
    let world = World::new().await;
    let stored = order("tiers");
    world.database.store(&stored, 1).await;
    let first = world.replica().await;
    // The warm-up has it already; a second replica has nothing but what it is asked for.
    assert_eq!(first.order("tiers").await.source(), Some("local"));

    let mut config = world.config();
    config.cache.warmup = 0;
    let cold = crate::harness::Replica::start(config).await.ready().await;
    let answer = cold.order("tiers").await;
    assert_eq!((answer.status, answer.source()), (200, Some("postgres")));
    assert_eq!(answer.body, document(&stored));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.header("etag"),
        Some(format!("\"{}\"", version(1)).as_str())
    );
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    let (whole, fraction) = answer
        .header("x-duration-ms")
        .unwrap()
        .split_once('.')
        .unwrap();
    assert!(whole.parse::<u64>().is_ok() && fraction.len() == 3 && fraction.parse::<u64>().is_ok());

    let again = cold.order("tiers").await;
    again.assert_order("local", &stored);

    eventually("the read was written back to Redis", || async {
        world.redis.version_of("tiers").await.is_some()
    })
    .await;
    let mut config = world.config();
    config.cache.warmup = 0;
    let other = crate::harness::Replica::start(config).await.ready().await;
    let shared = other.order("tiers").await;
    shared.assert_order("redis", &stored);
    assert_eq!(other.order("tiers").await.source(), Some("local"));

    let current = other.get("/order/tiers?nocache=1").await;
    current.assert_order("postgres", &stored);

    assert_eq!(
        cold.metric(r#"cache_requests_total{result="miss",tier="local"}"#),
        1.0
    );
    assert_eq!(
        cold.metric(r#"cache_requests_total{result="hit",tier="local"}"#),
        1.0
    );
    assert_eq!(
        other.metric(r#"cache_requests_total{result="hit",tier="redis"}"#),
        1.0
    );
    assert_eq!(
        other
            .metric(r#"http_requests_total{method="GET",route="/order/{order_uid}",status="200"}"#),
        3.0
    );
    assert_eq!(
        other.metric(r#"http_request_duration_seconds_count{route="/order/{order_uid}"}"#),
        3.0
    );
}

#[tokio::test]
async fn a_client_that_has_the_version_gets_no_body() {
    let world = World::new().await;
    world.database.store(&order("known"), 7).await;
    let replica = world.replica().await;
    let etag = format!("\"{}\"", version(7));
    for value in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        for path in ["/order/known", "/order/known?nocache=1"] {
            let answer = replica
                .request("GET", path)
                .header("If-None-Match", &value)
                .send()
                .await;
            assert_eq!(answer.status, 304, "{value}");
            assert_eq!(answer.header("etag"), Some(etag.as_str()));
            assert!(answer.body.is_empty());
        }
    }
    let other = format!("\"{}\"", version(6));
    let answer = replica
        .request("GET", "/order/known")
        .header("If-None-Match", &other)
        .send()
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn what_cannot_be_answered_is_a_problem_with_a_code() {
    let world = World::new().await;
    world.database.store(&order("gone"), 1).await;
    world.database.erase("gone", 2).await;
    let replica = world.replica().await;
    for path in [
        "/order/not%20a%20uid",
        "/order/ä",
        "/order/a.b",
        &format!("/order/{}", "x".repeat(65)),
        "/order/%zz",
    ] {
        replica.get(path).await.assert_problem(400, "malformed_uid");
    }
    replica
        .get("/order/unknown?nocache=perhaps")
        .await
        .assert_problem(400, "bad_request");
    for source in ["postgres", "local"] {
        let unknown = replica.order("unknown").await;
        unknown.assert_problem(404, "order_not_found");
        assert_eq!(unknown.source(), Some(source));
    }
    for path in ["/order/gone", "/order/gone", "/order/gone?nocache=1"] {
        replica.get(path).await.assert_problem(410, "order_erased");
    }
    assert_eq!(
        replica.metric(r#"cache_requests_total{result="negative",tier="local"}"#),
        1.0
    );

    for path in ["/order/", "/order", "/order/a/b", "/nothing", "/orders/"] {
        replica.get(path).await.assert_problem(404, "not_found");
    }
    let posted = replica.request("POST", "/order/gone").send().await;
    posted.assert_problem(405, "method_not_allowed");
    assert_eq!(posted.header("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(
        replica.metric(r#"http_requests_total{method="GET",route="unmatched",status="404"}"#),
        5.0
    );
}

#[tokio::test]
async fn an_escaped_uid_is_the_same_uid() {
    let world = World::new().await;
    world.database.store(&order("esc-1"), 1).await;
    let replica = world.replica().await;
    assert_eq!(replica.get("/order/%65sc%2D1").await.status, 200);
}

#[tokio::test]
async fn head_answers_as_get_without_the_body() {
    let world = World::new().await;
    let stored = order("head");
    world.database.store(&stored, 1).await;
    let replica = world.replica().await;
    let answer = replica.request("HEAD", "/order/head").send().await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_empty());
    assert_eq!(
        answer.header("content-length"),
        Some(document(&stored).len().to_string().as_str())
    );
    assert_eq!(
        answer.header("etag"),
        Some(format!("\"{}\"", version(1)).as_str())
    );
    let missing = replica.request("HEAD", "/order/missing").send().await;
    assert_eq!((missing.status, missing.body.len()), (404, 0));
    assert_eq!(
        replica.metric(
            r#"http_requests_total{method="HEAD",route="/order/{order_uid}",status="200"}"#
        ),
        1.0
    );
}

#[tokio::test]
async fn the_request_id_is_kept_or_made() {
    let world = World::new().await;
    let replica = world.replica().await;
    let kept = replica
        .request("GET", "/order/x")
        .header("X-Request-Id", "abc-1")
        .send()
        .await;
    assert_eq!(kept.header("x-request-id"), Some("abc-1"));
    let replaced = replica
        .request("GET", "/nothing")
        .header("X-Request-Id", "not sane")
        .send()
        .await;
    assert!(
        replaced
            .header("x-request-id")
            .is_some_and(|id| !id.is_empty() && id != "not sane")
    );
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_read_also_when_the_first_hangs_up() {
    let world = World::new().await;
    let stored = order("hot");
    world.database.store(&stored, 1).await;
    let mut config = world.config();
    config.cache.warmup = 0;
    let replica = crate::harness::Replica::start(config).await.ready().await;
    let lock = world.database.lock().await;
    let leader = replica.request("GET", "/order/hot").connect().await;
    eventually("the leader's read waits", || async {
        world.database.waiting_sessions().await == 1
    })
    .await;
    let followers: Vec<_> = (0..20)
        .map(|_| replica.request("GET", "/order/hot").send())
        .collect();
    let followers = followers.into_iter().map(tokio::spawn).collect::<Vec<_>>();
    let asked = r#"cache_requests_total{result="miss",tier="redis"}"#;
    eventually("all have asked", || async { replica.metric(asked) == 21.0 }).await;
    drop(leader);
    assert_eq!(
        world.database.waiting_sessions().await,
        1,
        "one read for all"
    );
    drop(lock);
    let started = Instant::now();
    for follower in followers {
        let answer = follower.await.unwrap();
        assert_eq!(
            (answer.status, answer.source()),
            (200, Some("postgres")),
            "after {:?}",
            started.elapsed()
        );
        assert_eq!(answer.body, document(&stored));
    }
}
