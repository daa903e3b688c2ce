//! `POST /orders/batch-get`.

use shared::{order::Order, testing::eventually};

use crate::harness::{Replica, Response, World, order, revision};

const PATH: &str = "/orders/batch-get";

async fn post(replica: &Replica, content_type: &str, body: &str) -> Response {
    replica
        .request("POST", PATH)
        .header("Content-Type", content_type)
        .body(body)
        .send()
        .await
}

fn body(uids: &[&str]) -> String {
    serde_json::json!({ "order_uids": uids }).to_string()
}

async fn batch(replica: &Replica, uids: &[&str]) -> Response {
    post(replica, "application/json", &body(uids)).await
}

/// Asserts that the response has exactly these documents and uids.
#[track_caller]
fn assert_batch(answer: &Response, orders: &[&Order], missing: &[&str], erased: &[&str]) {
    let documents: Vec<_> = orders
        .iter()
        .map(|order| String::from_utf8(order.to_json()).unwrap())
        .collect();
    let list = |uids: &[&str]| serde_json::to_string(uids).unwrap();
    let expected = format!(
        r#"{{"orders":[{}],"missing":{},"erased":{}}}"#,
        documents.join(","),
        list(missing),
        list(erased)
    );
    assert_eq!(
        (answer.status, String::from_utf8_lossy(&answer.body)),
        (200, expected.as_str().into())
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    assert_eq!(
        answer.header("content-length"),
        Some(expected.len().to_string().as_str())
    );
}

#[tokio::test]
async fn each_tier_answers_for_what_the_tiers_above_lack() {
    let world = World::new().await;
    let [local, shared, stored] = ["local", "shared", "stored"].map(order);
    for order in [&local, &shared, &stored] {
        world.store(order, 1).await;
    }
    for name in ["gone-shared", "gone-stored"] {
        world.store(&order(name), 1).await;
    }
    let erased = world.erase("gone-shared", 2).await;
    world.erase("gone-stored", 2).await;
    world.announce(&revision(&shared, 1)).await;
    world.announce(&erased).await;
    let replica = world.cold_replica().await;
    assert_eq!(replica.order("local").await.status, 200);
    assert_eq!(replica.order("missing-local").await.status, 404);
    let (local_miss, redis_miss) = (
        replica.cache_requests("local", "miss"),
        replica.cache_requests("redis", "miss"),
    );

    let uids = [
        "stored",
        "missing",
        "gone-stored",
        "shared",
        "missing-local",
        "gone-shared",
        "local",
    ];
    let answer = batch(&replica, &uids).await;
    let check = |answer: &Response| {
        assert_batch(
            answer,
            &[&stored, &shared, &local],
            &["missing", "missing-local"],
            &["gone-stored", "gone-shared"],
        );
    };
    check(&answer);
    assert_eq!(replica.cache_requests("local", "hit"), 1.0);
    assert_eq!(replica.cache_requests("local", "negative"), 1.0);
    assert_eq!(replica.cache_requests("local", "miss"), local_miss + 5.0);
    assert_eq!(replica.cache_requests("redis", "hit"), 2.0);
    assert_eq!(replica.cache_requests("redis", "miss"), redis_miss + 3.0);

    // Now the local cache has all of them, and Redis those that came from Postgres.
    let again = batch(&replica, &uids).await;
    check(&again);
    assert_eq!(replica.cache_requests("local", "miss"), local_miss + 5.0);
    for uid in ["stored", "gone-stored"] {
        world.wait_until_cached(uid).await;
    }
    assert_eq!(replica.order("stored").await.source(), Some("local"));
}

#[tokio::test]
async fn orders_keep_the_order_of_the_request_and_a_repeated_uid_counts_once() {
    let world = World::new().await;
    let [a, b] = ["a", "b"].map(order);
    world.store(&a, 1).await;
    world.store(&b, 2).await;
    let replica = world.replica().await;
    let answer = batch(&replica, &["b", "x", "a", "b", "x"]).await;
    assert_batch(&answer, &[&b, &a], &["x"], &[]);
    let answer = batch(&replica, &["a", "b"]).await;
    assert_batch(&answer, &[&a, &b], &[], &[]);
}

#[tokio::test]
async fn postgres_is_asked_once_for_each_step_of_a_batch() {
    let world = World::new().await;
    let names: Vec<String> = (0..100).map(|n| format!("u{n}")).collect();
    let orders: Vec<Order> = names.iter().map(|name| order(name)).collect();
    for (offset, order) in orders.iter().enumerate() {
        world.store(order, offset as i64).await;
    }
    let replica = world.cold_replica().await;
    let uids: Vec<&str> = names.iter().map(String::as_str).collect();
    let lock = world.database.lock("orders").await;
    let request = replica
        .request("POST", PATH)
        .header("Content-Type", "application/json")
        .body(&body(&uids));
    let slow = tokio::spawn(request.send());
    world.wait_for_blocked_reads(1).await;
    // The orders of one step: a batch of large orders must not take a call of any length.
    assert_eq!(replica.cache_requests("redis", "miss"), 20.0);
    drop(lock);
    let answer = slow.await.unwrap();
    assert_eq!(replica.cache_requests("redis", "miss"), 100.0);
    assert_batch(&answer, &orders.iter().collect::<Vec<_>>(), &[], &[]);
    assert_eq!(replica.cache_requests("local", "miss"), 100.0);
}

#[tokio::test]
async fn a_batch_from_before_an_announcement_is_not_cached() {
    let world = World::new().await;
    let replica = world.cold_replica().await;
    let [mut raced, other] = ["raced", "other"].map(order);
    world.store(&raced, 1).await;
    world.store(&other, 1).await;
    let lock = world.database.lock("orders").await;
    let request = replica
        .request("POST", PATH)
        .header("Content-Type", "application/json")
        .body(&body(&["raced", "other"]));
    let slow = tokio::spawn(request.send());
    world.wait_for_blocked_reads(1).await;
    let older = raced.clone();
    raced.delivery_service = "changed".into();
    world.announce(&revision(&raced, 2)).await;
    replica.wait_for_order_from("redis", &raced).await;
    drop(lock);
    assert_batch(&slow.await.unwrap(), &[&older, &other], &[], &[]);
    let next = replica.order("raced").await;
    assert_eq!(next.source(), Some("local"));
    assert_eq!(next.body, raced.to_json());
}

#[tokio::test]
async fn without_redis_a_batch_comes_from_postgres() {
    let mut world = World::new().await;
    let stored = order("steady");
    world.store(&stored, 1).await;
    let replica = world.cold_replica().await;
    world.redis.kill();
    let answer = batch(&replica, &["steady", "unknown"]).await;
    assert_batch(&answer, &[&stored], &["unknown"], &[]);
}

#[tokio::test]
async fn without_postgres_a_batch_needs_every_order_in_a_cache() {
    let world = World::new().await;
    let [local, shared] = ["local", "shared"].map(order);
    world.store(&local, 1).await;
    let replica = world.replica().await;
    replica.wait_for_order_from("local", &local).await;
    let stored = world.store(&shared, 2).await;
    world.announce(&stored).await;
    world.database.shut().await;
    let answer = batch(&replica, &["shared", "local"]).await;
    assert_batch(&answer, &[&shared, &local], &[], &[]);
    let failed = batch(&replica, &["shared", "local", "unknown"]).await;
    failed.assert_temporary_problem(503, "unavailable");
    world.database.open().await;
    eventually("an answer for all", async || {
        let answer = batch(&replica, &["shared", "local", "unknown"]).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_invalid_request_has_its_status_code_and_reason() {
    let world = World::new().await;
    let replica = world.replica().await;
    let json = "application/json";
    let many = |count| body(&vec!["u"; count]);
    for (content_type, body, status, code, detail) in [
        (
            json,
            body(&["a", "b c"]),
            400,
            "malformed_uid",
            "order_uids[1] ",
        ),
        (json, many(0), 400, "bad_request", "has 0 elements"),
        (json, many(101), 400, "bad_request", "has 101 elements"),
        (json, String::new(), 400, "bad_request", "order_uids"),
        (
            json,
            r#"{"order_uids":["a"],"fields":"all"}"#.to_owned(),
            400,
            "bad_request",
            "nothing else",
        ),
        (
            "text/plain",
            body(&["a"]),
            415,
            "unsupported_media_type",
            "",
        ),
        (json, " ".repeat(70_000), 413, "body_too_large", ""),
    ] {
        let answer = post(&replica, content_type, &body).await;
        answer.assert_problem(status, code);
        let found = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(found.contains(detail), "{found}");
    }
    assert_eq!(batch(&replica, &["u"; 100]).await.status, 200);
    let wrong = replica.get(PATH).await;
    wrong.assert_problem(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), Some("POST, OPTIONS"));
}

#[tokio::test]
async fn a_batch_counts_as_ten_requests() {
    let world = World::new().await;
    let replica = world
        .replica_with(|config| config.api.rate_limit = 20)
        .await;
    // Twenty requests are the rate of one second, so a batch that counted as one would always be
    // admitted. A machine slow enough to have all of these admitted would need ten seconds.
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(batch(&replica, &["a"]).await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
}
