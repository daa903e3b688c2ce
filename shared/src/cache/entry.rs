//! Entries of the Redis cache: reads, and writes by compare-and-set.

use std::{
    sync::{LazyLock, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use redis::{
    Cmd, FromRedisValue, ParsingError, Pipeline, RedisResult, RedisWrite, Script, ScriptInvocation,
    Value, aio::ConnectionLike, cluster_async::ClusterConnection,
};

use super::{
    Cache, CacheError, announcement,
    connection::{CLUSTER_CONCURRENCY, Connection},
    durations::GET,
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

fn key(uid: &OrderUid) -> String {
    let mut key = String::with_capacity(PREFIX.len() + uid.as_str().len());
    key.push_str(PREFIX);
    key.push_str(uid.as_str());
    key
}

/// Builds the command that reads an entry. Every read of the api does this, so the key is formatted
/// in place.
pub(super) fn get(uid: &OrderUid) -> Cmd {
    let mut command = Cmd::with_capacity(4, 128);
    command.arg("HMGET");
    command.write_arg_fmt(format_args!("{PREFIX}{uid}"));
    command.arg("version").arg("json");
    command
}

/// The entry of an order in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The version of the order, and the shape of the document.
    pub version: DocumentVersion,
    /// The bytes that the api returns; none for an erased order.
    pub document: Option<Bytes>,
}

/// The reply to `HMGET key version json`, parsed without copying the document.
pub(super) struct Reply(pub(super) Option<(Vec<u8>, Option<Vec<u8>>)>);

impl FromRedisValue for Reply {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let Value::Array(fields) = value else {
            return Err("an array was expected".into());
        };
        let mut fields = fields.into_iter();
        match (fields.next(), fields.next()) {
            (Some(Value::Nil), _) => Ok(Self(None)),
            (Some(Value::BulkString(version)), Some(Value::BulkString(json))) => {
                Ok(Self(Some((version, Some(json)))))
            }
            (Some(Value::BulkString(version)), Some(Value::Nil)) => Ok(Self(Some((version, None)))),
            _ => Err("two strings were expected".into()),
        }
    }
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The entry now holds this version in this shape.
    Written,
    /// The entry already held this version in this shape.
    Unchanged,
    /// The entry holds a newer version, or this version in a newer shape.
    KeptNewer,
    /// There is no entry, and the row was read too long ago to create one. Read the row again.
    Late,
}

impl WriteOutcome {
    fn from_script(code: i64) -> Result<Self, CacheError> {
        match code {
            1 => Ok(Self::Written),
            0 => Ok(Self::Unchanged),
            -1 => Ok(Self::KeptNewer),
            -2 => Ok(Self::Late),
            _ => Err(CacheError::Corrupt),
        }
    }
}

impl Cache {
    /// Returns the entry of the order `uid`; none if Redis has no entry, or one of an older shape.
    ///
    /// An entry of a newer shape is returned as it is. Newer programs write such entries during an
    /// upgrade.
    ///
    /// # Errors
    /// When Redis does not answer, or the key holds something other than an order entry.
    pub async fn get(&self, uid: &OrderUid) -> Result<Option<Cached>, CacheError> {
        let command = get(uid);
        let reply: Reply = match &self.inner.reads {
            Some(reads) => {
                let reply = self.attempt(GET, reads.call(command)).await?;
                Reply::from_redis_value(reply).map_err(|_| CacheError::Corrupt)?
            }
            // Boxed: otherwise every read would reserve the memory for this branch.
            None => {
                Box::pin(self.run(GET, async {
                    let mut connection = self.connection().await?;
                    Ok(command.query_async(&mut connection).await?)
                }))
                .await?
            }
        };
        self.entry(reply)
    }

    /// Returns the entry of each order like [`Cache::get`], in the order of `uids`. Reads all of
    /// them in one round trip; in a cluster, where a pipeline cannot span nodes, concurrently.
    pub async fn get_many(&self, uids: &[OrderUid]) -> Vec<Result<Option<Cached>, CacheError>> {
        let replies = self.run("get_many", async {
            let mut connection = self.connection().await?;
            match &connection {
                Connection::Cluster(cluster) => Ok(read_cluster(cluster, uids).await),
                Connection::Shared(_) | Connection::Pooled(_) => {
                    read_pipeline(&mut connection, uids).await
                }
            }
        });
        match replies.await {
            Ok(replies) => {
                let entries = replies.into_iter().map(|reply| self.entry(reply?));
                entries.collect()
            }
            Err(error) => uids.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn entry(&self, reply: Reply) -> Result<Option<Cached>, CacheError> {
        let Some((version, document)) = reply.0 else {
            return Ok(None);
        };
        let version: DocumentVersion = std::str::from_utf8(&version)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(CacheError::Corrupt)?;
        if version.representation < self.representation {
            return Ok(None);
        }
        Ok(Some(Cached {
            version,
            document: document.map(Bytes::from),
        }))
    }

    /// Writes one revision, read from Postgres at `read_at`, and announces it if it was written.
    ///
    /// # Errors
    /// When Redis does not answer, or rejects the write. The write may have happened nevertheless.
    pub async fn fill(
        &self,
        revision: &Revision,
        read_at: Instant,
    ) -> Result<WriteOutcome, CacheError> {
        let until = self.fresh_until(read_at).await?;
        let code = self
            .run("fill", async {
                let mut connection = self.connection().await?;
                let message = announcement::encode([revision]);
                let mut invocation = self.invocation(revision, until);
                invocation.arg(announcement::CHANNEL).arg(message);
                Ok(invocation.invoke_async(&mut connection).await?)
            })
            .await?;
        WriteOutcome::from_script(code)
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
            pipeline.invoke_script(&self.invocation(revision, until));
        }
        pipeline.publish(announcement::CHANNEL, announcement::encode(revisions));
        let mut codes: Vec<RedisResult<i64>> = pipeline.query_async(connection).await?;
        match codes.pop() {
            // Without announcements, replicas keep entries until their time to live ends.
            Some(Err(error)) if self.inner.announcements.failed() => {
                tracing::warn!(code = error.code(), "Redis rejects announcements");
            }
            Some(Err(_)) | None => {}
            Some(Ok(_)) => {
                self.inner.announcements.ended();
            }
        }
        Ok(codes
            .into_iter()
            .map(|code| WriteOutcome::from_script(code?))
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
                writes.push(write_one(cluster.clone(), self.invocation(revision, until)));
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

    fn invocation(&self, revision: &Revision, until: i64) -> ScriptInvocation<'static> {
        let version = DocumentVersion {
            version: revision.version,
            representation: self.representation,
        };
        let ttl = self.inner.ttl.mul_f64(1.0 + 0.1 * fastrand::f64());
        let mut invocation = COMPARE_AND_SET.prepare_invoke();
        invocation
            .key(key(&revision.uid))
            .arg(version.to_string())
            .arg(revision.document.as_deref().unwrap_or_default())
            .arg(ttl.as_millis() as u64)
            .arg(until);
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

async fn read_pipeline(
    connection: &mut Connection,
    uids: &[OrderUid],
) -> Result<Vec<Result<Reply, CacheError>>, CacheError> {
    let mut pipeline = Pipeline::with_capacity(uids.len());
    for uid in uids {
        pipeline.add_command(get(uid));
    }
    let values = connection
        .req_packed_commands(&pipeline, 0, uids.len())
        .await?;
    Ok(values.into_iter().map(reply).collect())
}

async fn read_cluster(
    cluster: &ClusterConnection,
    uids: &[OrderUid],
) -> Vec<Result<Reply, CacheError>> {
    let mut replies = Vec::with_capacity(uids.len());
    for group in uids.chunks(CLUSTER_CONCURRENCY) {
        let reads = group.iter().map(|uid| {
            let mut connection = cluster.clone();
            async move { reply(connection.req_packed_command(&get(uid)).await?) }
        });
        replies.extend(join_all(reads).await);
    }
    replies
}

/// Parses a value of a pipeline, which may be an error of its own command.
fn reply(value: Value) -> Result<Reply, CacheError> {
    Reply::from_redis_value(value.extract_error()?).map_err(|_| CacheError::Corrupt)
}

async fn write_one(
    mut connection: ClusterConnection,
    invocation: ScriptInvocation<'static>,
) -> Result<WriteOutcome, CacheError> {
    WriteOutcome::from_script(invocation.invoke_async(&mut connection).await?)
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
