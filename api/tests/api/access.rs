//! API keys and their scopes, rate limit, CORS.

use std::{env, fs, path::PathBuf, process};

use api::{App, config::Config};
use prometheus::Registry;
use serde_json::json;
use shared::testing::eventually;

use crate::harness::{EventStream, Replica, Request, Response, World, order};

/// SHA-256 of `secret`.
const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// SHA-256 of `other`.
const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

/// A key file. Dropping it removes the file.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(test: &str, text: &str) -> Self {
        let file = Self(env::temp_dir().join(format!("api-{test}-{}", process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A replica whose only key, with the token `secret`, has these scopes and options.
async fn guarded(world: &World, test: &str, rest: &str) -> (Replica, KeyFile) {
    let file = KeyFile::new(
        test,
        &format!("# support\nsupport sha256:{DIGEST} {rest}\n"),
    );
    let path = file.0.clone();
    let replica = world
        .replica_with(|config| config.api.keys_file = Some(path))
        .await;
    (replica, file)
}

/// Sends GET with a token.
async fn get_as(replica: &Replica, token: &str, target: &str) -> Response {
    as_caller(replica, token, target).send().await
}

fn as_caller(replica: &Replica, token: &str, target: &str) -> Request {
    let request = replica.request("GET", target);
    request.header("Authorization", &format!("Bearer {token}"))
}

#[tokio::test]
async fn with_keys_only_valid_tokens_read_orders() {
    let world = World::new().await;
    world.store(&order("guarded"), 1).await;
    let (replica, _file) = guarded(&world, "valid", "orders:read,orders:list").await;
    let challenge = |response: &Response| response.header("www-authenticate").unwrap().to_owned();
    for target in ["/order/guarded", "/orders", "/caller"] {
        let rejected = replica.get(target).await;
        rejected.assert_problem(401, "unauthorized");
        assert_eq!(challenge(&rejected), "Bearer realm=\"orders\"");
        let wrong = get_as(&replica, "wrong", target).await;
        wrong.assert_problem(401, "unauthorized");
        let invalid = "Bearer realm=\"orders\", error=\"invalid_token\"";
        assert_eq!(challenge(&wrong), invalid);
        assert_eq!(get_as(&replica, "secret", target).await.status, 200);
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

/// The operations that each scope allows.
#[tokio::test]
async fn each_operation_needs_its_scope() {
    let world = World::new().await;
    world.store(&order("scoped"), 1).await;
    let body = r#"{"order_uids":["scoped"]}"#;
    let send = async |replica: &Replica, method: &'static str, target: &str| {
        let request = replica
            .request(method, target)
            .header("Authorization", "Bearer secret");
        let request = match method {
            "POST" => request
                .header("Content-Type", "application/json")
                .body(body),
            _ => request,
        };
        // A stream has no end; its head has the status.
        EventStream::open(request).await.head
    };
    let operations = [
        ("GET", "/order/scoped", "orders:read"),
        ("HEAD", "/order/scoped", "orders:read"),
        ("GET", "/order/scoped/events", "orders:read"),
        ("POST", "/orders/batch-get", "orders:read"),
        ("GET", "/orders", "orders:list"),
        ("GET", "/orders/events", "orders:list"),
        ("GET", "/orders/export", "orders:list"),
    ];
    for scope in ["orders:read", "orders:list", "orders:pii"] {
        let (replica, _file) = guarded(&world, scope, scope).await;
        assert_eq!(send(&replica, "GET", "/caller").await.status, 200);
        for (method, target, needed) in operations {
            let head = send(&replica, method, target).await;
            if needed == scope {
                assert_eq!(head.status, 200, "{scope}: {method} {target}");
                continue;
            }
            assert_eq!(head.status, 403, "{scope}: {method} {target}");
            let challenge = format!(
                "Bearer realm=\"orders\", error=\"insufficient_scope\", scope=\"{needed}\""
            );
            assert_eq!(head.header("www-authenticate"), Some(challenge.as_str()));
        }
    }
    let (replica, _file) = guarded(&world, "detail", "orders:read").await;
    let rejected = get_as(&replica, "secret", "/orders").await;
    rejected.assert_problem(403, "forbidden");
    let problem = rejected.json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("orders:list"), "{detail}");
}

#[tokio::test]
async fn an_expired_key_is_401_with_a_code_of_its_own() {
    let world = World::new().await;
    let options = "orders:read expires=2026-01-01T00:00:00Z";
    let (replica, _file) = guarded(&world, "expired", options).await;
    let expired = get_as(&replica, "secret", "/order/any").await;
    expired.assert_problem(401, "token_expired");
    let wrong = get_as(&replica, "wrong", "/order/any").await;
    wrong.assert_problem(401, "unauthorized");
    let of = |key| format!(r#"api_key_requests_total{{key="{key}",status="401"}}"#);
    assert_eq!(replica.metric(&of("support")), 1.0);
    assert_eq!(replica.metric(&of("none")), 1.0);
}

/// The order of the lines does not matter, and neither do other keys.
#[tokio::test]
async fn a_revoked_key_is_rejected_and_its_streams_end() {
    let world = World::new().await;
    world.store(&order("watched"), 1).await;
    let (replica, file) = guarded(&world, "revoked", "orders:read,orders:list").await;
    let kept = format!("other sha256:{OTHER} orders:read,orders:list\n");
    let revoked = format!("support sha256:{DIGEST} orders:read,orders:list\n");
    file.write(&format!("{revoked}{kept}"));
    eventually("the second key", async || {
        let answer = get_as(&replica, "other", "/order/watched").await;
        (answer.status == 200).then_some(())
    })
    .await;
    let open = async |token| {
        let all = as_caller(&replica, token, "/orders/events");
        let mut one = EventStream::open(as_caller(&replica, token, "/order/watched/events")).await;
        one.expect("order").await;
        (EventStream::open(all).await, one)
    };
    let (mut all, mut one) = open("secret").await;
    let (mut kept_all, _kept_one) = open("other").await;
    let of = |status| format!(r#"api_key_requests_total{{key="support",status="{status}"}}"#);
    assert_eq!(replica.metric(&of(200)), 2.0);

    file.write(&kept);
    assert_eq!(all.event().await, None);
    assert_eq!(one.event().await, None);
    get_as(&replica, "secret", "/order/watched")
        .await
        .assert_problem(401, "unauthorized");
    // The other key has its streams, and its requests are served.
    let revision = world.store(&order("watched"), 2).await;
    world.announce(&revision).await;
    kept_all.expect("change").await;
    assert_eq!(get_as(&replica, "other", "/orders").await.status, 200);
    let text = replica.metrics();
    assert!(!text.contains(r#"key="support""#), "{text}");
}

#[tokio::test]
async fn requests_are_counted_for_their_key() {
    let world = World::new().await;
    world.store(&order("counted"), 1).await;
    let (replica, _file) = guarded(&world, "counted", "orders:read").await;
    let of = |key: &str, status: u16| {
        let series = format!(r#"api_key_requests_total{{key="{key}",status="{status}"}}"#);
        replica.metric(&series)
    };
    assert_eq!((of("support", 200), of("support", 404)), (0.0, 0.0));
    for target in [
        "/order/counted",
        "/order/counted",
        "/order/unknown",
        "/orders",
    ] {
        get_as(&replica, "secret", target).await;
    }
    replica.get("/order/counted").await;
    // Neither pages nor preflights need a caller.
    replica.get("/").await;
    replica.request("OPTIONS", "/orders").send().await;
    assert_eq!((of("support", 200), of("support", 404)), (2.0, 1.0));
    assert_eq!((of("support", 403), of("none", 401)), (1.0, 1.0));
    eventually("two different orders", async || {
        let orders = replica.metric(r#"api_key_distinct_orders{key="support"}"#);
        (orders == 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_credentials_the_api_starts_only_where_that_is_safe_or_allowed() {
    let world = World::new().await;
    let mut config = world.config();
    config.api.addr = "0.0.0.0:0".to_owned();
    let build = async |config: &Config| App::build(config.clone(), Registry::new()).await;
    let error = build(&config).await.err().unwrap().to_string();
    assert!(
        error.starts_with("API_ALLOW_ANONYMOUS: ") && error.contains("API_ADDR=0.0.0.0:0"),
        "{error}"
    );
    config.api.allow_anonymous = true;
    assert!(build(&config).await.is_ok());
    config.api.allow_anonymous = false;
    let file = KeyFile::new(
        "anonymous",
        &format!("support sha256:{DIGEST} orders:read\n"),
    );
    config.api.keys_file = Some(file.0.clone());
    assert!(build(&config).await.is_ok());
    config.api.keys_file = None;
    for loopback in ["localhost:0", "127.0.0.1:0"] {
        config.api.addr = loopback.to_owned();
        assert!(build(&config).await.is_ok(), "{loopback}");
    }
}

#[tokio::test]
async fn a_caller_reads_its_name_and_scopes() {
    let world = World::new().await;
    let open = world.replica().await.get("/caller").await;
    assert_eq!(open.status, 200);
    let all = json!(["orders:read", "orders:list", "orders:pii"]);
    assert_eq!(
        open.json(),
        json!({"name": null, "scopes": all, "customer": null})
    );

    let (replica, _file) = guarded(&world, "caller", "orders:pii customer=ACME%20Ltd").await;
    replica
        .get("/caller")
        .await
        .assert_problem(401, "unauthorized");
    let caller = get_as(&replica, "secret", "/caller").await;
    let scopes = json!(["orders:pii"]);
    assert_eq!(
        caller.json(),
        json!({"name": "support", "scopes": scopes, "customer": "ACME Ltd"})
    );
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

/// Twenty requests are the rate of one second, so requests that counted as one would always be
/// admitted. A machine slow enough to have all of these admitted would need ten seconds.
#[tokio::test]
async fn lists_and_reads_past_the_caches_count_as_ten_requests() {
    let world = World::new().await;
    for path in ["/orders", "/order/unknown?nocache=1"] {
        let replica = world
            .replica_with(|config| config.api.rate_limit = 20)
            .await;
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(replica.get(path).await.status);
        }
        assert!(statuses.contains(&429), "{path}: {statuses:?}");
    }
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
