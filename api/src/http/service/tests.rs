//! Routes with a request body and with a streamed response, over a real connection.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use poem::{Endpoint, EndpointExt};
use poem_openapi::{OpenApi, payload::Json};
use prometheus::Registry;
use serde_json::{Value, json};
use shared::{
    runtime::health::Dependency,
    storage::{Postgres, Role},
    telemetry::metrics::render,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    http::{
        HttpServer,
        pages::Documentation,
        route::{Handler, Operation},
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
    async fn echo(&self, request: &Request, body: Json<Value>) -> Json<Value> {
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
        scope: None,
        cost: 1,
        handler: Handler::Page(|_| Counter.boxed()),
    },
    Route {
        path: "/echo",
        method: Method::POST,
        scope: None,
        cost: 1,
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
    HttpService::over(TABLE, &resources, &config, None, metrics).unwrap()
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
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let server = HttpServer::bind("127.0.0.1:0").await.unwrap();
    let port = server.port();
    tokio::spawn(server.serve(service(&metrics), CancellationToken::new()));
    let get = "GET /counter HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let response = exchange(port, get).await;
    let chunks = "\r\n\r\n1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n";
    assert!(response.ends_with(chunks), "{response}");
}

#[tokio::test]
async fn a_post_route_receives_the_whole_request() {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let server = HttpServer::bind("127.0.0.1:0").await.unwrap();
    let (port, stop) = (server.port(), CancellationToken::new());
    let running = tokio::spawn(server.serve(service(&metrics), stop.clone()));

    // A body of 100 kB arrives in several reads, a small one in the read of its head.
    for body in [
        r#"{"a":1}"#.to_owned(),
        format!("\"{}\"", "x".repeat(100_000)),
    ] {
        let head = format!(
            "POST /echo?q=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let response = exchange(port, &(head + &body)).await;
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
