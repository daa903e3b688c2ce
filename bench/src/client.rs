//! HTTP client of the api with persistent connections.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{StatusCode, Uri, body::Incoming};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};

/// HTTP client. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Client(Pool<HttpConnector, Empty<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Pool::builder(TokioExecutor::new()).build(connector))
    }

    /// Requests `url`, reads the whole response, and returns its status. The connection is then
    /// free for the next request.
    ///
    /// # Errors
    /// If no complete response arrives.
    pub(crate) async fn status(&self, url: &str) -> anyhow::Result<StatusCode> {
        let uri: Uri = url.parse()?;
        let answer = self.0.get(uri).await.with_context(|| url.to_owned())?;
        let status = answer.status();
        answer.into_body().collect().await?;
        Ok(status)
    }

    /// Requests `url` and returns the body of the response, which may have no end.
    ///
    /// # Errors
    /// If no response arrives, or its status is not 200.
    pub(crate) async fn open(&self, url: &str) -> anyhow::Result<Incoming> {
        let uri: Uri = url.parse()?;
        let answer = self.0.get(uri).await.with_context(|| url.to_owned())?;
        ensure!(
            answer.status() == StatusCode::OK,
            "{url}: {}",
            answer.status()
        );
        Ok(answer.into_body())
    }
}
