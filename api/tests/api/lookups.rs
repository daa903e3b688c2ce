//! `GET /order/{order_uid}`: tiers, headers, conditional requests, errors.

use shared::testing::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{World, etag, order};

#[tokio::test]
async fn every_tier_returns_the_same_bytes() {
    let world = World::new().await;
    let stored = order("tiers");
    world.store(&stored, 1).await;
    let cold = world.cold_replica().await;
    let answer = cold.order("tiers").await;
    answer.assert_order("postgres", &stored);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("etag"), Some(etag(1).as_str()));
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let (whole, fraction) = answer
        .header("x-duration-ms")
        .unwrap()
        .split_once('.')
        .unwrap();
    assert!(whole.parse::<u64>().is_ok() && fraction.len() == 3 && fraction.parse::<u64>().is_ok());

    let again = cold.order("tiers").await;
    again.assert_order("local", &stored);

    world.wait_until_cached("tiers").await;
    let other = world.cold_replica().await;
    let shared = other.order("tiers").await;
    shared.assert_order("redis", &stored);
    assert_eq!(other.order("tiers").await.source(), Some("local"));

    let current = other.get("/order/tiers?nocache=1").await;
    current.assert_order("postgres", &stored);

    assert_eq!(cold.cache_requests("local", "miss"), 1.0);
    assert_eq!(cold.cache_requests("local", "hit"), 1.0);
    assert_eq!(other.cache_requests("redis", "hit"), 1.0);
    assert_eq!(other.order_requests("GET", 200), 3.0);
    assert_eq!(
        other.metric(r#"http_request_duration_seconds_count{route="/order/{order_uid}"}"#),
        3.0
    );
}

#[tokio::test]
async fn a_client_with_the_current_version_gets_304() {
    let world = World::new().await;
    world.store(&order("known"), 7).await;
    let replica = world.replica().await;
    let current = etag(7);
    for value in [current.as_str(), &format!("\"other\", W/{current}"), "*"] {
        for path in ["/order/known", "/order/known?nocache=1"] {
            let answer = replica
                .request("GET", path)
                .header("If-None-Match", value)
                .send()
                .await;
            assert_eq!(answer.status, 304, "{value}");
            assert_eq!(answer.header("etag"), Some(current.as_str()));
            assert!(answer.body.is_empty());
        }
    }
    let answer = replica
        .request("GET", "/order/known")
        .header("If-None-Match", &etag(6))
        .send()
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn each_error_has_its_status_and_code() {
    let world = World::new().await;
    world.store(&order("gone"), 1).await;
    world.erase("gone", 2).await;
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
    assert_eq!(replica.cache_requests("local", "negative"), 1.0);

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
async fn an_escaped_uid_finds_the_same_order() {
    let world = World::new().await;
    world.store(&order("esc-1"), 1).await;
    let replica = world.replica().await;
    assert_eq!(replica.get("/order/%65sc%2D1").await.status, 200);
}

#[tokio::test]
async fn head_returns_the_headers_of_get_without_the_body() {
    let world = World::new().await;
    let stored = order("head");
    world.store(&stored, 1).await;
    let replica = world.replica().await;
    let answer = replica.request("HEAD", "/order/head").send().await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_empty());
    assert_eq!(
        answer.header("content-length"),
        Some(stored.to_json().len().to_string().as_str())
    );
    assert_eq!(answer.header("etag"), Some(etag(1).as_str()));
    let missing = replica.request("HEAD", "/order/missing").send().await;
    assert_eq!((missing.status, missing.body.len()), (404, 0));
    assert_eq!(replica.order_requests("HEAD", 200), 1.0);
}

#[tokio::test]
async fn a_client_may_close_its_write_side_after_the_request() {
    let world = World::new().await;
    world.store(&order("asked"), 1).await;
    let replica = world.cold_replica().await;
    let lock = world.database.lock("orders").await;
    let mut client = replica.request("GET", "/order/asked").connect().await;
    client.shutdown().await.unwrap();
    world.wait_for_blocked_reads(1).await;
    drop(lock);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_request_id_is_kept_or_created() {
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
async fn concurrent_requests_share_one_read_even_if_the_first_client_disconnects() {
    let world = World::new().await;
    let stored = order("hot");
    world.store(&stored, 1).await;
    let replica = world.cold_replica().await;
    let lock = world.database.lock("orders").await;
    let leader = replica.request("GET", "/order/hot").connect().await;
    world.wait_for_blocked_reads(1).await;
    let followers: Vec<_> = (0..20)
        .map(|_| tokio::spawn(replica.request("GET", "/order/hot").send()))
        .collect();
    eventually("21 misses in Redis", async || {
        (replica.cache_requests("redis", "miss") == 21.0).then_some(())
    })
    .await;
    drop(leader);
    assert_eq!(world.blocked_reads().await, 1, "one read for all");
    drop(lock);
    for follower in followers {
        let answer = follower.await.unwrap();
        answer.assert_order("postgres", &stored);
    }
}

#[tokio::test]
async fn concurrent_reads_past_the_caches_share_one_read_and_leave_connections_to_lookups() {
    let world = World::new().await;
    let stored = order("hot");
    world.store(&stored, 1).await;
    // Four connections: one for the health check, one for reads past the caches.
    let replica = world.cold_replica().await;
    let lock = world.database.lock("orders").await;
    let first = tokio::spawn(replica.request("GET", "/order/hot?nocache=1").send());
    world.wait_for_blocked_reads(1).await;
    let others: Vec<_> = (0..20)
        .flat_map(|n| ["hot".to_owned(), format!("other-{n}")])
        .map(|uid| {
            replica
                .request("GET", &format!("/order/{uid}?nocache=1"))
                .connect()
        })
        .collect();
    let others = futures_util::future::join_all(others).await;
    let cold = tokio::spawn(replica.request("GET", "/order/cold").send());
    world.wait_for_blocked_reads(2).await;
    drop(lock);
    first.await.unwrap().assert_order("postgres", &stored);
    cold.await.unwrap().assert_problem(404, "order_not_found");
    drop(others);
}

#[tokio::test]
async fn the_operator_may_let_clients_keep_copies() {
    let world = World::new().await;
    world.store(&order("kept"), 1).await;
    let replica = world
        .replica_with(|config| config.api.cache_control = "private, no-cache".to_owned())
        .await;
    for path in ["/order/kept", "/orders"] {
        let answer = replica.get(path).await;
        assert_eq!(
            answer.header("cache-control"),
            Some("private, no-cache"),
            "{path}"
        );
    }
    // Errors are never kept.
    let missing = replica.get("/order/missing").await;
    assert_eq!(missing.header("cache-control"), Some("no-store"));
    let stream = replica.watch("/orders/events").await;
    assert_eq!(stream.head.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn every_response_forbids_to_guess_its_type() {
    let world = World::new().await;
    let replica = world.replica().await;
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/assets/app.js", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/orders", 200),
        ("GET", "/orders/export", 200),
        ("GET", "/order/missing", 404),
        ("GET", "/nothing", 404),
        ("POST", "/orders", 405),
        ("OPTIONS", "/orders", 204),
        ("GET", "/order/a?b=c", 400),
    ] {
        let answer = replica.request(method, path).send().await;
        assert_eq!(answer.status, status, "{method} {path}");
        let header = answer.header("x-content-type-options");
        assert_eq!(header, Some("nosniff"), "{method} {path}");
    }
}
