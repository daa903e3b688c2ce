//! Routes with a request body and with a streamed response, over a real connection.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream};
use poem::{Body, Endpoint, EndpointExt, Request};
use poem_openapi::{OpenApi, payload::Json};
use prometheus::Registry;
use serde_json::{Value, json};
use shared::{
    runtime::transport::{ConnectionMetrics, HttpServer, Limits},
    storage::{Postgres, Role},
    telemetry::{Dependency, metrics::render},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::{upload::BODY_BYTES, *};
use crate::{
    http::{
        pages::Documentation,
        params::{Limit, Query},
        route::{Access, Cost, Handler, Operation},
    },
    local_cache::{LocalCache, Settings},
    lookup::Tiers,
};

/// Returns what a request had.
struct Echo;

impl Operation for Echo {
    fn new(_: &Resources) -> Self {
        Self
    }
}

#[OpenApi]
impl Echo {
    #[oai(path = "/echo", method = "post")]
    async fn echo(
        &self,
        request: &Request,
        #[oai(name = "q")] _q: Query<Limit>,
        body: Json<HashMap<String, Value>>,
    ) -> Json<Value> {
        let peer = request.remote_addr().as_socket_addr();
        Json(json!({
            "method": request.method().as_str(),
            "query": request.uri().query(),
            "client": peer.map(|peer| peer.ip().to_string()),
            "body": body.0,
        }))
    }
}

/// Streams a response whose length is not known beforehand.
struct Counter;

impl Endpoint for Counter {
    type Output = Response;

    async fn call(&self, _: Request) -> poem::Result<Response> {
        let numbers = stream::iter(0..3).map(|n| Ok::<_, io::Error>(n.to_string()));
        Ok(Response::builder().body(Body::from_bytes_stream(numbers)))
    }
}

static TABLE: &[Route] = &[
    Route {
        path: "/counter",
        method: Method::GET,
        access: Access::Anyone,
        cost: Cost::Fixed(1),
        handler: Handler::Page(|_| Counter.boxed()),
    },
    Route {
        path: "/echo",
        method: Method::POST,
        access: Access::Anyone,
        cost: Cost::Fixed(1),
        handler: Handler::operation::<Echo>(),
    },
];

/// The routes of `TABLE` with CORS for every origin.
fn service(metrics: &Metrics) -> HttpService {
    let settings = Settings {
        max_bytes: 0,
        ttl: Duration::ZERO,
        negative_ttl: Duration::ZERO,
    };
    let database = shared::config::Database::default();
    let tiers = Tiers {
        local: Arc::new(LocalCache::new(settings)),
        redis: None,
        postgres: Postgres::new("postgres://none@localhost:1/none", &database, Role::Api).unwrap(),
        health: Dependency::new("postgres", "db_up"),
        replica: None,
    };
    let resources = Resources {
        lookup: Lookup::new(tiers, metrics.cache.clone()),
        events: None,
        documentation: Documentation {
            swagger_ui: String::new(),
            json: String::new(),
            yaml: String::new(),
        },
    };
    let config = config::Api {
        cors_origins: vec!["*".to_owned()],
        ..config::Api::default()
    };
    let auth = Arc::new(Auth::new(&config, &metrics.access, &metrics.oidc).unwrap());
    HttpService::over(TABLE, &resources, &config, (auth, None), metrics).unwrap()
}

async fn bind() -> HttpServer {
    let metrics = ConnectionMetrics::register(&Registry::new(), "public").unwrap();
    let limits = Limits::public(100, 0);
    HttpServer::bind("127.0.0.1:0", limits, metrics)
        .await
        .unwrap()
}

/// Serves the routes of `TABLE` until the test ends. Returns the port.
async fn serve() -> u16 {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let server = bind().await;
    let port = server.port();
    tokio::spawn(server.serve(service(&metrics), CancellationToken::new()));
    port
}

/// Posts `body`, verbatim, with the lines `headers`.
async fn post(port: u16, headers: &[&str], body: &str) -> String {
    let line = "POST /echo?q=1 HTTP/1.1\r\nHost: a\r\nConnection: close";
    let headers = headers.join("\r\n");
    exchange(port, &format!("{line}\r\n{headers}\r\n\r\n{body}")).await
}

/// Asserts that `response` is a problem with this status and code.
#[track_caller]
fn assert_problem(response: &str, status: u16, code: &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{response}"
    );
    assert!(head.contains("application/problem+json"), "{response}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], code);
}

/// Sends `request` and reads until the server closes the connection.
async fn exchange(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn a_response_may_be_a_stream() {
    let port = serve().await;
    let get = "GET /counter HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let response = exchange(port, get).await;
    let chunks = "\r\n\r\n1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n";
    assert!(response.ends_with(chunks), "{response}");
}

#[tokio::test]
async fn a_post_route_receives_the_whole_request() {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let server = bind().await;
    let (port, stop) = (server.port(), CancellationToken::new());
    let running = tokio::spawn(server.serve(service(&metrics), stop.clone()));

    // A body of 60 kB arrives in several reads, a small one in the read of its head.
    for body in [
        r#"{"a":1}"#.to_owned(),
        json!({"a": "x".repeat(60_000)}).to_string(),
    ] {
        let length = format!("Content-Length: {}", body.len());
        let response = post(port, &["Content-Type: application/json", &length], &body).await;
        let (head, echo) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let expected = json!({
            "method": "POST", "query": "q=1", "client": "127.0.0.1", "body": body,
        });
        assert_eq!(serde_json::from_str::<Value>(echo).unwrap(), expected);
    }
    let get = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let response = exchange(port, get).await.to_lowercase();
    assert!(response.starts_with("http/1.1 405 "), "{response}");
    assert!(
        response.contains("\r\nallow: post, options\r\n"),
        "{response}"
    );
    let preflight = "OPTIONS /echo HTTP/1.1\r\nHost: a\r\nOrigin: https://shop.example\r\n\
                     Connection: close\r\n\r\n";
    let response = exchange(port, preflight).await.to_lowercase();
    assert!(
        response.contains("\r\naccess-control-allow-methods: post\r\n"),
        "{response}"
    );

    stop.cancel();
    running.await.unwrap();
    let text = String::from_utf8(render(&registry).unwrap()).unwrap();
    for line in [
        r#"http_requests_total{method="POST",route="/echo",status="200"} 2"#,
        r#"http_requests_total{method="GET",route="/echo",status="405"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn an_unusable_body_gets_a_problem_that_does_not_quote_it() {
    let port = serve().await;
    let json = ["Content-Type: application/json"].as_slice();
    let text = ["Content-Type: text/private"].as_slice();
    for (headers, body, status, code) in [
        (json, r#"{"a":private}"#, 400, "bad_request"),
        (json, r#"["private"]"#, 400, "bad_request"),
        (json, "", 400, "bad_request"),
        (text, r#"{"a":1}"#, 415, "unsupported_media_type"),
        (&[], r#"{"a":1}"#, 415, "unsupported_media_type"),
    ] {
        let length = format!("Content-Length: {}", body.len());
        let headers = [headers, &[length.as_str()]].concat();
        let response = post(port, &headers, body).await;
        assert_problem(&response, status, code);
        assert!(!response.contains("private"), "{response}");
    }
}

#[tokio::test]
async fn only_operations_reject_unknown_and_repeated_parameters() {
    let port = serve().await;
    let get = async |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        exchange(port, &head).await
    };
    for (query, code) in [
        ("q=1&q=1", "repeated_parameter"),
        ("other=1", "unknown_parameter"),
    ] {
        let post = format!("POST /echo?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_problem(&exchange(port, &post).await, 400, code);
        let page = get(&format!("/counter?{query}")).await;
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_gets_413() {
    let port = serve().await;
    // Only the last byte is over the limit. The server has then read all bytes, and closes the
    // connection without a reset.
    let bytes = "1".repeat(BODY_BYTES + 1);
    let length = format!("Content-Length: {}", bytes.len());
    let chunk = format!("{:x}\r\n{bytes}", bytes.len());
    for (header, body) in [
        (length.as_str(), &bytes),
        ("Transfer-Encoding: chunked", &chunk),
    ] {
        let response = post(port, &["Content-Type: application/json", header], body).await;
        assert_problem(&response, 413, "body_too_large");
    }
}
