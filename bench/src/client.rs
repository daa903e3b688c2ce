//! A client of the api that keeps its connections open.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{StatusCode, Uri};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};

/// Clones share the connections.
#[derive(Clone)]
pub(crate) struct Client(Pool<HttpConnector, Empty<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Pool::builder(TokioExecutor::new()).build(connector))
    }

    /// Asks for `url` and reads the answer to its end, so that the connection is free again.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub(crate) async fn status(&self, url: &str) -> anyhow::Result<StatusCode> {
        let uri: Uri = url.parse()?;
        let answer = self.0.get(uri).await.with_context(|| url.to_owned())?;
        let status = answer.status();
        answer.into_body().collect().await?;
        Ok(status)
    }
}
