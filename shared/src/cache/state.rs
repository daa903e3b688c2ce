//! The state of the cache as a whole: its clock, and the watermark that reveals a Redis with older
//! content.

use std::{sync::LazyLock, time::Instant};

use redis::{FromRedisValue, Script, Value};

use super::{Cache, CacheError, announcement, clock::ClockReading};
use crate::DatabaseTime;

/// The hash that holds the state.
pub(super) const KEY: &str = "order-cache";

/// What a walk over all entries does with them.
#[derive(Clone, Copy)]
enum Visit {
    Count,
    Delete,
}

/// A key that no order can have: a uid never contains `~`.
const PROBE_KEY: &str = "order:~";

static PROBE_WRITE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("probe_write.lua")));

static MOVE_WATERMARK: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("move_watermark.lua")));

/// The state of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// The server processes that answer, sorted; empty if Redis does not report them. Another
    /// process may hold older content, even if it has the same watermark.
    pub servers: Vec<String>,
    /// The replication ids of these servers, sorted, and then their roles, sorted. They change when
    /// a server takes its content from another one.
    pub replication: Vec<String>,
    /// Keys that these servers have evicted since they started.
    pub evicted: u64,
    /// Moment up to which Redis is known to be complete. None after a flush, after an eviction, or
    /// if Redis returned empty.
    pub watermark: Option<DatabaseTime>,
    /// Whether the api must bypass Redis: more has to be repaired than can be done at once.
    pub bypass: bool,
    /// Whether `worker cache clear` removed the watermark and may not have deleted every entry yet.
    pub cleared: bool,
    /// Why Redis rejects the commands that write an entry; none if it accepts them.
    pub rejects_writes: Option<String>,
}

impl Cache {
    /// Reads the clock and the state, and tries the commands that write an entry. Call it about
    /// once a second.
    ///
    /// # Errors
    /// When Redis does not answer, or rejects a command that reads.
    pub async fn probe(&self) -> Result<CacheState, CacheError> {
        self.read_clock().await?;
        let state = self.state().await?;
        let rejects_writes = match self.try_write().await {
            Ok(()) => None,
            Err(CacheError::Rejected(why)) => Some(why),
            Err(error) => return Err(error),
        };
        Ok(CacheState {
            rejects_writes,
            ..state
        })
    }

    /// Reads the state. Writes nothing, so `rejects_writes` is none.
    ///
    /// # Errors
    /// When Redis does not answer or rejects a command.
    pub async fn state(&self) -> Result<CacheState, CacheError> {
        let (info, (watermark, bypass, cleared)) = self
            .run("probe", async {
                let mut connection = self.connection().await?;
                let info: Value = redis::cmd("INFO")
                    .query_async(&mut connection)
                    .await
                    .map_err(CacheError::with_text)?;
                let state: (Option<i64>, Option<u8>, Option<u8>) = redis::cmd("HMGET")
                    .arg(KEY)
                    .arg(&["watermark", "bypass", "cleared"])
                    .query_async(&mut connection)
                    .await
                    .map_err(CacheError::with_text)?;
                Ok((info, state))
            })
            .await?;
        let mut replication = fields(&info, "master_replid");
        replication.extend(fields(&info, "role"));
        let evicted = fields(&info, "evicted_keys");
        Ok(CacheState {
            servers: fields(&info, "run_id"),
            replication,
            evicted: evicted.iter().flat_map(|count| count.parse::<u64>()).sum(),
            watermark: watermark.map(DatabaseTime),
            bypass: bypass.is_some(),
            cleared: cleared.is_some(),
            rejects_writes: None,
        })
    }

    /// Tries the commands that write an entry, on a key that no order has. In a cluster, it tries
    /// only the master of that key.
    async fn try_write(&self) -> Result<(), CacheError> {
        self.run("probe_write", async {
            let mut connection = self.connection().await?;
            let mut invocation = PROBE_WRITE.key(PROBE_KEY);
            invocation.arg(announcement::CHANNEL);
            invocation
                .load_async(&mut connection)
                .await
                .map_err(CacheError::with_text)?;
            invocation
                .invoke_async(&mut connection)
                .await
                .map_err(CacheError::with_text)
        })
        .await
    }

    pub(super) async fn read_clock(&self) -> Result<ClockReading, CacheError> {
        let asked = Instant::now();
        let (seconds, micros): (i64, i64) = self
            .run("time", async {
                let mut connection = self.connection().await?;
                Ok(redis::cmd("TIME").query_async(&mut connection).await?)
            })
            .await?;
        let reading = ClockReading {
            redis_ms: seconds * 1000 + micros / 1000,
            arrived: Instant::now(),
        };
        self.inner.clock.keep(reading, asked);
        Ok(reading)
    }

    /// Moves the watermark from `from` (none if it is missing) to `to`. Ends a bypass, and removes
    /// the field `cleared`. Returns false and changes nothing if the watermark is no longer `from`.
    ///
    /// # Errors
    /// When Redis does not answer or rejects the command.
    pub async fn move_watermark(
        &self,
        from: Option<DatabaseTime>,
        to: DatabaseTime,
    ) -> Result<bool, CacheError> {
        let from = from
            .map(|DatabaseTime(micros)| micros.to_string())
            .unwrap_or_default();
        self.run("watermark", async {
            let mut connection = self.connection().await?;
            let moved: i64 = MOVE_WATERMARK
                .key(KEY)
                .arg(from)
                .arg(to.0)
                .invoke_async(&mut connection)
                .await?;
            Ok(moved == 1)
        })
        .await
    }

    /// Makes every api replica bypass Redis until the watermark moves.
    ///
    /// # Errors
    /// When Redis does not answer or rejects the command.
    pub async fn begin_bypass(&self) -> Result<(), CacheError> {
        self.change_state(&["HSET", KEY, "bypass", "1"]).await
    }

    async fn change_state(&self, command: &[&str]) -> Result<(), CacheError> {
        self.run("state", async {
            let mut connection = self.connection().await?;
            let mut words = redis::Cmd::new();
            words.arg(command);
            Ok(words.query_async(&mut connection).await?)
        })
        .await
    }

    /// Deletes all our entries step by step; returns how many it deleted.
    ///
    /// # Errors
    /// When Redis does not answer or rejects a command. Some entries may be deleted by then.
    pub async fn clear(&self) -> Result<u64, CacheError> {
        self.walk(Visit::Delete).await
    }

    /// Counts our entries, approximately: an entry that moves meanwhile may be counted twice.
    ///
    /// # Errors
    /// When Redis does not answer or rejects a command.
    pub async fn count(&self) -> Result<u64, CacheError> {
        self.walk(Visit::Count).await
    }

    /// Removes all our keys and announces it; returns how many entries it deleted.
    ///
    /// The watermark is removed before the entries: if this call fails, the next repair of any
    /// worker deletes the rest. The field `cleared` shows that the watermark was not evicted,
    /// because a worker restores an evicted watermark.
    ///
    /// # Errors
    /// When Redis does not answer or rejects a command. Some entries may be left then.
    pub async fn remove_all(&self) -> Result<u64, CacheError> {
        self.change_state(&["HSET", KEY, "cleared", "1"]).await?;
        self.change_state(&["HDEL", KEY, "watermark", "bypass"])
            .await?;
        let deleted = self.clear().await?;
        self.change_state(&["HDEL", KEY, "cleared"]).await?;
        self.run("publish", async {
            let mut connection = self.connection().await?;
            Ok(redis::cmd("PUBLISH")
                .arg(announcement::CHANNEL)
                .arg(announcement::CLEARED)
                .query_async::<()>(&mut connection)
                .await?)
        })
        .await?;
        Ok(deleted)
    }

    async fn walk(&self, visit: Visit) -> Result<u64, CacheError> {
        let (mut scan, mut count) = (self.scan().await?, 0);
        while let Some(keys) = self.next_keys(&mut scan).await? {
            count += match visit {
                Visit::Delete if !keys.is_empty() => {
                    self.run("unlink", async {
                        Ok(self.connection().await?.unlink(&keys).await?)
                    })
                    .await?
                }
                Visit::Delete | Visit::Count => keys.len() as u64,
            };
        }
        Ok(count)
    }

    /// Returns the eviction policy, such as `allkeys-lru`, if Redis reports it.
    ///
    /// # Errors
    /// When Redis does not answer or rejects the command.
    pub async fn eviction_policy(&self) -> Result<Option<String>, CacheError> {
        let info: Value = self
            .run("info", async {
                let mut connection = self.connection().await?;
                Ok(redis::cmd("INFO")
                    .arg("memory")
                    .query_async(&mut connection)
                    .await?)
            })
            .await?;
        Ok(fields(&info, "maxmemory_policy").into_iter().next())
    }
}

/// Returns the values of the field `name` in a reply to INFO, sorted. A single server has one
/// value. The reply of a cluster is a map by address, with one value per server.
fn fields(info: &Value, name: &str) -> Vec<String> {
    let mut values: Vec<String> = match info {
        Value::Map(servers) => servers
            .iter()
            .flat_map(|(_, info)| fields(info, name))
            .collect(),
        text => String::from_redis_value(text.clone())
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
            .collect(),
    };
    values.sort_unstable();
    values
}
