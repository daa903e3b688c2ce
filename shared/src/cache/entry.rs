//! Writes entries of the Redis cache by compare-and-set.

use std::{
    sync::{LazyLock, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use redis::{
    Pipeline, RedisResult, Script, ScriptInvocation, Value, cluster_async::ClusterConnection,
};

use super::{
    Cache, CacheError, announcement,
    connection::{CLUSTER_CONCURRENCY, Connection},
};
use crate::order::{DocumentVersion, OrderUid, Revision};

/// How long after its row was read or committed a write may create an entry. Later, a newer version
/// may have come and gone (evicted, expired, flushed).
const FRESH: Duration = Duration::from_secs(1);

/// Size at which a pipeline is cut, so that none comes near the deadline of one command. Redis
/// needs about 30 ms for 1000 documents of 1.2 kB.
const PIPELINE_BYTES: usize = 256 * 1024;

static COMPARE_AND_SET: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("compare_and_set.lua")));

/// The key prefix of our entries.
pub(super) const PREFIX: &str = "order:";

/// Returns the key of the entry.
pub(super) fn key(uid: &OrderUid) -> String {
    let mut key = String::with_capacity(PREFIX.len() + uid.as_str().len());
    key.push_str(PREFIX);
    key.push_str(uid.as_str());
    key
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The entry now holds this revision.
    Written,
    /// The entry already held this revision.
    Unchanged,
    /// The entry holds this newer version. Postgres must hold it, too.
    KeptNewer(DocumentVersion),
    /// The entry holds this version in a newer shape.
    KeptShape,
    /// There is no entry, and the row was read too long ago to create one. Read the row again.
    Late,
}

impl WriteOutcome {
    fn from_script(reply: &Value) -> Result<Self, CacheError> {
        match reply {
            Value::Int(1) => Ok(Self::Written),
            Value::Int(0) => Ok(Self::Unchanged),
            Value::Int(-2) => Ok(Self::Late),
            Value::Int(-3) => Ok(Self::KeptShape),
            Value::BulkString(version) => str::from_utf8(version)
                .ok()
                .and_then(|version| version.parse().ok())
                .map(Self::KeptNewer)
                .ok_or(CacheError::Corrupt),
            _ => Err(CacheError::Corrupt),
        }
    }
}

impl Cache {
    /// Writes one revision, read from Postgres at `read_at`, and announces it if it was written.
    ///
    /// # Errors
    /// When Redis does not answer, or rejects the write. The write may have happened nevertheless.
    pub async fn fill(
        &self,
        revision: &Revision,
        read_at: Instant,
    ) -> Result<WriteOutcome, CacheError> {
        self.write_announced(revision, None, read_at).await
    }

    /// Writes one revision like [`Cache::fill`], also over an entry of the version `ahead`.
    /// Postgres, read at `read_at` after that entry was seen, must hold an older version. So the
    /// entry is forged, or Postgres has lost data.
    ///
    /// # Errors
    /// When Redis does not answer, or rejects the write. The write may have happened nevertheless.
    pub async fn replace(
        &self,
        revision: &Revision,
        ahead: DocumentVersion,
        read_at: Instant,
    ) -> Result<WriteOutcome, CacheError> {
        let outcome = self.write_announced(revision, Some(ahead), read_at).await?;
        if outcome == WriteOutcome::Written {
            self.inner.replaced.add(1, &[]);
            if self.inner.replacements.failed() {
                tracing::error!(
                    order_uid = %revision.uid,
                    postgres = %revision.version,
                    redis = %ahead,
                    runbook = "CacheEntriesAhead",
                    "replaced an entry of Redis that was newer than Postgres"
                );
            }
        }
        Ok(outcome)
    }

    async fn write_announced(
        &self,
        revision: &Revision,
        ahead: Option<DocumentVersion>,
        read_at: Instant,
    ) -> Result<WriteOutcome, CacheError> {
        let until = self.fresh_until(read_at).await?;
        let reply = self
            .run("fill", async {
                let mut connection = self.connection().await?;
                let message = announcement::encode([revision]);
                let mut invocation = self.invocation(revision, ahead, until);
                invocation.arg(announcement::CHANNEL).arg(message);
                Ok(invocation.invoke_async(&mut connection).await?)
            })
            .await?;
        WriteOutcome::from_script(&reply)
    }

    /// Writes revisions that were read or committed at `read_at`, and announces all of them, with
    /// one message per pipeline. Returns one result for each revision, in their order. If a result
    /// is an error, the write may have happened nevertheless.
    pub async fn write_batch(
        &self,
        revisions: &[Revision],
        read_at: Instant,
    ) -> Vec<Result<WriteOutcome, CacheError>> {
        if self.inner.misplaced.load(Ordering::Relaxed) {
            return revisions
                .iter()
                .map(|_| Err(CacheError::Misplaced))
                .collect();
        }
        let mut results = Vec::with_capacity(revisions.len());
        for chunk in chunks(revisions) {
            match self.write_chunk(chunk, read_at).await {
                Ok(outcomes) => results.extend(outcomes),
                Err(error) => results.extend(chunk.iter().map(|_| Err(error.clone()))),
            }
        }
        if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
            self.note(error);
        }
        results
    }

    async fn write_chunk(
        &self,
        revisions: &[Revision],
        read_at: Instant,
    ) -> Result<Vec<Result<WriteOutcome, CacheError>>, CacheError> {
        let until = self.fresh_until(read_at).await?;
        self.run("write", async {
            let mut connection = self.connection().await?;
            if self.inner.connections.is_cluster() {
                self.write_to_cluster(&connection, revisions, until).await
            } else {
                self.write_pipeline(&mut connection, revisions, until).await
            }
        })
        .await
    }

    /// Writes revisions in one pipeline that ends with their announcement. Rejected revisions are
    /// announced too: a replica that drops such an entry then reads Redis or Postgres.
    async fn write_pipeline(
        &self,
        connection: &mut Connection,
        revisions: &[Revision],
        until: i64,
    ) -> Result<Vec<Result<WriteOutcome, CacheError>>, CacheError> {
        let mut pipeline = Pipeline::with_capacity(revisions.len() + 2);
        pipeline
            .ignore_errors()
            .load_script(&COMPARE_AND_SET)
            .ignore();
        for revision in revisions {
            pipeline.invoke_script(&self.invocation(revision, None, until));
        }
        pipeline.publish(announcement::CHANNEL, announcement::encode(revisions));
        let mut replies: Vec<RedisResult<Value>> = pipeline.query_async(connection).await?;
        match replies.pop() {
            // Without announcements, replicas keep entries until their time to live ends.
            Some(Err(error)) if self.inner.announcements.failed() => {
                tracing::warn!(code = error.code(), "Redis rejects announcements");
            }
            Some(Err(_)) | None => {}
            Some(Ok(_)) => {
                self.inner.announcements.ended();
            }
        }
        Ok(replies
            .into_iter()
            .map(|reply| WriteOutcome::from_script(&reply?))
            .collect())
    }

    async fn write_to_cluster(
        &self,
        connection: &Connection,
        revisions: &[Revision],
        until: i64,
    ) -> Result<Vec<Result<WriteOutcome, CacheError>>, CacheError> {
        let Connection::Cluster(cluster) = connection else {
            return Err(CacheError::Corrupt);
        };
        let mut outcomes = Vec::with_capacity(revisions.len());
        for group in revisions.chunks(CLUSTER_CONCURRENCY) {
            let mut writes = Vec::with_capacity(group.len());
            for revision in group {
                let invocation = self.invocation(revision, None, until);
                writes.push(write_one(cluster.clone(), invocation));
            }
            outcomes.extend(join_all(writes).await);
        }
        let mut publisher = cluster.clone();
        let _receivers: i64 = redis::cmd("PUBLISH")
            .arg(announcement::CHANNEL)
            .arg(announcement::encode(revisions))
            .query_async(&mut publisher)
            .await?;
        Ok(outcomes)
    }

    fn invocation(
        &self,
        revision: &Revision,
        ahead: Option<DocumentVersion>,
        until: i64,
    ) -> ScriptInvocation<'static> {
        let version = DocumentVersion {
            version: revision.version,
            representation: self.representation,
        };
        let version = version.to_string();
        let document = revision.document.as_deref();
        let mac = self
            .mac_keys
            .as_ref()
            .map(|keys| keys.sign(&revision.uid, &version, document));
        let ttl = self.inner.ttl.mul_f64(1.0 + 0.1 * fastrand::f64());
        let mut invocation = COMPARE_AND_SET.prepare_invoke();
        invocation
            .key(key(&revision.uid))
            .arg(version)
            .arg(document.unwrap_or_default())
            .arg(ttl.as_millis() as u64)
            .arg(until)
            .arg(mac.unwrap_or_default().as_str())
            .arg(ahead.map(|ahead| ahead.to_string()).unwrap_or_default());
        invocation
    }

    /// Returns the time of the Redis clock, in ms, until which a row read at `read_at` may create
    /// an entry. It is at most one second after `read_at`, even if reading the clock took long:
    /// Redis took the reading before it arrived.
    async fn fresh_until(&self, read_at: Instant) -> Result<i64, CacheError> {
        let reading = match self.inner.clock.reading(Instant::now()) {
            Some(reading) => reading,
            None => self.read_clock().await?,
        };
        Ok(reading.at(read_at) + FRESH.as_millis() as i64)
    }
}

async fn write_one(
    mut connection: ClusterConnection,
    invocation: ScriptInvocation<'static>,
) -> Result<WriteOutcome, CacheError> {
    WriteOutcome::from_script(&invocation.invoke_async(&mut connection).await?)
}

/// Splits `revisions` into consecutive chunks of at most [`PIPELINE_BYTES`] of documents, but at
/// least one revision each.
fn chunks(revisions: &[Revision]) -> Vec<&[Revision]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, revision) in revisions.iter().enumerate() {
        let size = revision.document.as_ref().map_or(0, Bytes::len);
        if index > start && bytes + size > PIPELINE_BYTES {
            chunks.push(&revisions[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < revisions.len() {
        chunks.push(&revisions[start..]);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Version;

    fn revision(size: usize) -> Revision {
        Revision {
            uid: OrderUid::parse("u").unwrap(),
            version: Version::new(1, 1, 1),
            document: Some(Bytes::from(vec![b'x'; size])),
        }
    }

    #[test]
    fn chunks_are_bounded_in_bytes_and_lose_nothing() {
        let revisions = [
            revision(10),
            revision(PIPELINE_BYTES),
            revision(PIPELINE_BYTES * 3),
            revision(1),
            revision(2),
        ];
        let sizes: Vec<usize> = chunks(&revisions).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(sizes, [1, 1, 1, 2]);
        assert!(chunks(&[]).is_empty());
    }
}
