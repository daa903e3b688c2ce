//! API keys, rate limit, CORS.

use std::fs;

use crate::harness::{World, order};

/// SHA-256 of `secret`.
const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

#[tokio::test]
async fn with_keys_only_valid_tokens_read_orders() {
    let world = World::new().await;
    world.store(&order("guarded"), 1).await;
    let path = std::env::temp_dir().join(format!("api-keys-{}", std::process::id()));
    fs::write(
        &path,
        format!("# support\nsupport sha256:{DIGEST} orders:read\n"),
    )
    .unwrap();
    let replica = world
        .replica_with(|config| config.api.keys_file = Some(path.clone()))
        .await;
    fs::remove_file(&path).unwrap();
    for target in ["/order/guarded", "/orders"] {
        let rejected = replica.get(target).await;
        rejected.assert_problem(401, "unauthorized");
        assert!(
            rejected
                .header("www-authenticate")
                .is_some_and(|challenge| challenge.starts_with("Bearer"))
        );
        let wrong = replica
            .request("GET", target)
            .header("Authorization", "Bearer wrong")
            .send()
            .await;
        wrong.assert_problem(401, "unauthorized");
        let right = replica
            .request("GET", target)
            .header("Authorization", "Bearer secret")
            .send()
            .await;
        assert_eq!(right.status, 200);
    }
    for target in ["/order/guarded/events", "/orders/events"] {
        let rejected = replica.get(target).await;
        rejected.assert_problem(401, "unauthorized");
    }
    for target in [
        "/",
        "/docs",
        "/openapi.json",
        "/openapi.yaml",
        "/assets/app.js",
    ] {
        assert_eq!(replica.get(target).await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn a_caller_reads_the_name_of_its_key() {
    let world = World::new().await;
    let open = world.replica().await.get("/caller").await;
    assert_eq!(
        (open.status, open.body),
        (200, br#"{"name":null}"#.to_vec())
    );

    let path = std::env::temp_dir().join(format!("api-caller-{}", std::process::id()));
    fs::write(&path, format!("support sha256:{DIGEST} orders:read\n")).unwrap();
    let replica = world
        .replica_with(|config| config.api.keys_file = Some(path.clone()))
        .await;
    fs::remove_file(&path).unwrap();
    replica
        .get("/caller")
        .await
        .assert_problem(401, "unauthorized");
    let caller = replica
        .request("GET", "/caller")
        .header("Authorization", "Bearer secret")
        .send()
        .await;
    assert_eq!(caller.body, br#"{"name":"support"}"#);
    assert_eq!(caller.header("cache-control"), Some("no-store"));
    assert_eq!(caller.header("content-type"), Some("application/json"));
}

/// The page loads many small files. Counted, they would leave nothing for its requests.
#[tokio::test]
async fn the_web_page_does_not_count_in_the_rate() {
    let world = World::new().await;
    let replica = world.replica_with(|config| config.api.rate_limit = 1).await;
    for _ in 0..20 {
        assert_eq!(replica.get("/").await.status, 200);
        assert_eq!(replica.get("/assets/app.js").await.status, 200);
    }
    assert_eq!(replica.get("/orders").await.status, 200);
}

#[tokio::test]
async fn a_client_over_its_rate_gets_429_and_retry_after() {
    let world = World::new().await;
    let replica = world.replica_with(|config| config.api.rate_limit = 1).await;
    let mut limited = None;
    // The limit is one request per second. A machine slow enough to have all 60 admitted would need
    // a minute.
    for _ in 0..60 {
        let answer = replica.order("unknown").await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("a response with status 429");
    limited.assert_temporary_problem(429, "rate_limited");
    assert_eq!(
        replica.probe("/readyz").await.status,
        200,
        "the admin port has no limit"
    );
}

#[tokio::test]
async fn pages_of_configured_origins_may_read_responses() {
    let world = World::new().await;
    world.store(&order("open"), 1).await;
    let origins = vec!["https://shop.example".to_owned()];
    let replica = world
        .replica_with(|config| config.api.cors_origins = origins)
        .await;
    let ask = |method: &'static str, origin: &'static str| {
        replica
            .request(method, "/order/open")
            .header("Origin", origin)
            .send()
    };
    let named = ask("GET", "https://shop.example").await;
    assert_eq!(
        named.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    assert!(
        named
            .header("access-control-expose-headers")
            .is_some_and(|headers| headers.contains("X-Source"))
    );
    let other = ask("GET", "https://other.example").await;
    assert_eq!(
        (other.status, other.header("access-control-allow-origin")),
        (200, None)
    );
    let preflight = ask("OPTIONS", "https://shop.example").await;
    assert_eq!(preflight.status, 204);
    assert!(
        preflight
            .header("access-control-allow-headers")
            .is_some_and(|headers| {
                headers.contains("Authorization") && headers.contains("Last-Event-ID")
            })
    );

    let closed = world.replica().await;
    let answer = closed
        .request("GET", "/order/open")
        .header("Origin", "https://shop.example")
        .send()
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}
