//! The floor of reads: a bare hyper server that returns the same bytes with the same headers. It
//! reads from a table in memory, or from Redis over one shared connection.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use redis::aio::ConnectionManager;
use tokio::net::TcpListener;

const X_SOURCE: HeaderName = HeaderName::from_static("x-source");
const X_DURATION_MS: HeaderName = HeaderName::from_static("x-duration-ms");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Tier that the floor reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    Local,
    Redis,
    /// Redis, with a MAC in each entry. The floor is the same as without.
    Signed,
}

impl Tier {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
            Self::Signed => "signed",
        }
    }

    /// Returns the header `X-Source` of its answers.
    pub(crate) fn source(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis | Self::Signed => "redis",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    tier: Tier,
    /// Redis that holds the orders: read once for `local`, at each request for `redis`.
    #[arg(long)]
    redis_url: String,
}

/// Serves until the process is killed. The first line on standard output is the address.
///
/// # Errors
/// If Redis does not respond.
pub(crate) fn serve(options: &Options) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(accept(options))
}

async fn accept(options: &Options) -> anyhow::Result<()> {
    let answers = Arc::new(Answers::open(options).await?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = answers.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answers = answers.clone();
                async move { Ok::<_, Infallible>(answers.answer(request).await) }
            });
            // Returns when the load generator closes the connection.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

struct Answers {
    source: FloorTier,
    requests: AtomicU64,
}

enum FloorTier {
    Local(HashMap<String, (HeaderValue, Bytes)>),
    Redis(ConnectionManager),
}

impl Answers {
    async fn open(options: &Options) -> anyhow::Result<Self> {
        let source = match options.tier {
            Tier::Local => {
                let entries = e2e::entries(&options.redis_url).context("reading Redis")?;
                let answers = entries.into_iter().filter_map(|(uid, entry)| {
                    let json = Bytes::copy_from_slice(entry.json()?);
                    Some((uid, (etag(entry.version()?.as_bytes())?, json)))
                });
                FloorTier::Local(answers.collect())
            }
            Tier::Redis | Tier::Signed => {
                let client = redis::Client::open(options.redis_url.as_str())?;
                FloorTier::Redis(client.get_connection_manager().await?)
            }
        };
        Ok(Self {
            source,
            requests: AtomicU64::new(0),
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let uid = request.uri().path().strip_prefix("/order/");
        let found = match (&self.source, uid) {
            (_, None) => None,
            (FloorTier::Local(answers), Some(uid)) => answers.get(uid).cloned(),
            (FloorTier::Redis(connection), Some(uid)) => ask(connection.clone(), uid).await,
        };
        let Some((etag, json)) = found else {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let mut response = Response::new(Full::new(json));
        let headers = response.headers_mut();
        headers.reserve(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(ETAG, etag);
        let source = match self.source {
            FloorTier::Local(_) => Tier::Local,
            FloorTier::Redis(_) => Tier::Redis,
        };
        headers.insert(X_SOURCE, HeaderValue::from_static(source.source()));
        headers.insert(X_DURATION_MS, HeaderValue::from_static("0.042"));
        headers.insert(X_REQUEST_ID, self.request_id());
        response
    }

    fn request_id(&self) -> HeaderValue {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        HeaderValue::from_str(&format!("0123456789abcdef-{number:08x}"))
            .unwrap_or(HeaderValue::from_static("-"))
    }
}

async fn ask(mut connection: ConnectionManager, uid: &str) -> Option<(HeaderValue, Bytes)> {
    let (version, json): (Vec<u8>, Vec<u8>) = redis::cmd("HMGET")
        .arg(format!("order:{uid}"))
        .arg(&["version", "json"])
        .query_async(&mut connection)
        .await
        .ok()?;
    Some((etag(&version)?, json.into()))
}

fn etag(version: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&[b"\"", version, b"\""].concat()).ok()
}
