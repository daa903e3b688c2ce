//! Reads entries of the Redis cache, and drops what is not ours.

use std::sync::LazyLock;

use futures_util::future::join_all;
use redis::{
    Cmd, FromRedisValue, Pipeline, RedisWrite, Script, Value, aio::ConnectionLike,
    cluster_async::ClusterConnection,
};

use super::{
    Cache, CacheError,
    check::{Cached, Rejected, Reply},
    connection::{CLUSTER_CONCURRENCY, Connection},
    durations::GET,
    entry::{PREFIX, key},
};
use crate::order::OrderUid;

static DROP_ENTRY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("drop_entry.lua")));

impl Cache {
    /// Builds the command that reads an entry. Every read of the api does this, so the key is
    /// formatted in place.
    pub(super) fn read(&self, uid: &OrderUid) -> Cmd {
        let mut command = Cmd::with_capacity(5, 136);
        command.arg("HMGET");
        command.write_arg_fmt(format_args!("{PREFIX}{uid}"));
        command.arg("version").arg("json");
        if self.mac_keys.is_some() {
            command.arg("mac");
        }
        command
    }

    /// Returns the entry of the order `uid`; none if Redis has no entry, or one of an older shape.
    ///
    /// An entry of a newer shape is returned as it is. Newer programs write such entries during an
    /// upgrade.
    ///
    /// # Errors
    /// When Redis does not answer. Also when the key holds something other than an entry of ours
    /// (`cache::check`); it is then deleted.
    pub async fn get(&self, uid: &OrderUid) -> Result<Option<Cached>, CacheError> {
        let command = self.read(uid);
        let reply = match &self.inner.reads {
            Some(reads) => self.attempt(GET, reads.call(command)).await,
            // Boxed: otherwise every read would reserve the memory for this branch.
            None => {
                Box::pin(self.run(GET, async {
                    let mut connection = self.connection().await?;
                    Ok(command.query_async(&mut connection).await?)
                }))
                .await
            }
        };
        match self.entry(uid, reply.and_then(reply_of)) {
            Ok(entry) => entry,
            // Boxed likewise.
            Err(rejected) => Err(Box::pin(self.drop_entry(uid, rejected)).await),
        }
    }

    /// Returns the entry of each order like [`Cache::get`], in the order of `uids`. Reads all of
    /// them in one round trip; in a cluster, where a pipeline cannot span nodes, concurrently.
    pub async fn get_many(&self, uids: &[OrderUid]) -> Vec<Result<Option<Cached>, CacheError>> {
        let replies = self.run("get_many", async {
            let mut connection = self.connection().await?;
            match &connection {
                Connection::Cluster(cluster) => Ok(self.read_cluster(cluster, uids).await),
                Connection::Shared(_) | Connection::Pooled(_) => {
                    self.read_pipeline(&mut connection, uids).await
                }
            }
        });
        let replies = match replies.await {
            Ok(replies) => replies,
            Err(error) => return uids.iter().map(|_| Err(error.clone())).collect(),
        };
        let entries = uids.iter().zip(replies).map(|(uid, reply)| async move {
            match self.entry(uid, reply) {
                Ok(entry) => entry,
                Err(rejected) => Err(self.drop_entry(uid, rejected).await),
            }
        });
        join_all(entries).await
    }

    /// Checks a reply, and ignores entries of older shapes.
    fn entry(
        &self,
        uid: &OrderUid,
        reply: Result<Reply, CacheError>,
    ) -> Result<Result<Option<Cached>, CacheError>, Rejected> {
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) if error.is_wrong_type() => return Err(Rejected::not_a_hash()),
            Err(error) => return Ok(Err(error)),
        };
        let entry = reply.check(uid, self.mac_keys.as_deref())?;
        let is_usable = |entry: &Cached| entry.version.representation >= self.representation;
        Ok(Ok(entry.filter(is_usable)))
    }

    /// Deletes what is not an entry of ours, unless it has changed since it was read. Otherwise an
    /// entry with a forged newer version would keep real updates out. Returns the error for the
    /// reader.
    async fn drop_entry(&self, uid: &OrderUid, rejected: Rejected) -> CacheError {
        let Rejected { flaw, sighting } = rejected;
        if self.inner.rejections.failed() {
            tracing::warn!(
                order_uid = %uid,
                reason = %flaw,
                runbook = "CacheEntriesRejected",
                "dropping an entry of Redis that is not ours"
            );
        }
        let mut invocation = DROP_ENTRY.key(key(uid));
        invocation.arg(sighting.version).arg(sighting.length);
        if let Some(mac) = sighting.mac {
            invocation.arg(mac);
        }
        let dropped: Result<(), CacheError> = self
            .run("drop", async {
                let mut connection = self.connection().await?;
                Ok(invocation.invoke_async(&mut connection).await?)
            })
            .await;
        // The next reader tries again.
        if let Err(error) = dropped {
            tracing::debug!(%error, order_uid = %uid, "dropping an entry failed");
        }
        match flaw.is_unverified() {
            true => CacheError::Unverified,
            false => CacheError::Corrupt,
        }
    }

    async fn read_pipeline(
        &self,
        connection: &mut Connection,
        uids: &[OrderUid],
    ) -> Result<Vec<Result<Reply, CacheError>>, CacheError> {
        let mut pipeline = Pipeline::with_capacity(uids.len());
        for uid in uids {
            pipeline.add_command(self.read(uid));
        }
        let values = connection
            .req_packed_commands(&pipeline, 0, uids.len())
            .await?;
        let replies = values
            .into_iter()
            .map(|value| reply_of(value.extract_error()?));
        Ok(replies.collect())
    }

    async fn read_cluster(
        &self,
        cluster: &ClusterConnection,
        uids: &[OrderUid],
    ) -> Vec<Result<Reply, CacheError>> {
        let mut replies = Vec::with_capacity(uids.len());
        for group in uids.chunks(CLUSTER_CONCURRENCY) {
            let reads = group.iter().map(|uid| {
                let (mut connection, command) = (cluster.clone(), self.read(uid));
                async move { reply_of(connection.req_packed_command(&command).await?) }
            });
            replies.extend(join_all(reads).await);
        }
        replies
    }
}

fn reply_of(value: Value) -> Result<Reply, CacheError> {
    Reply::from_redis_value(value).map_err(|_| CacheError::Corrupt)
}
