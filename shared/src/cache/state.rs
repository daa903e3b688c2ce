//! What is known of the cache as a whole: its clock, and the watermark that tells whether Redis came back with older
//! content.

use std::{sync::LazyLock, time::Instant};

use redis::{FromRedisValue, Script, Value};

use super::{Cache, CacheError, announcement, clock::Reading, connection::Node, entry::PREFIX};

/// The hash that holds the state.
const KEY: &str = "order-cache";

/// Keys that one step of a walk looks at.
const SCAN_COUNT: usize = 1000;

/// What a walk does with our entries.
#[derive(Clone, Copy)]
enum Visit {
    Count,
    Delete,
}

/// A key that no order has: a uid has no `~`.
const PROBE_KEY: &str = "order:~";

static PROBE_WRITE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("probe_write.lua")));

static MOVE_WATERMARK: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("move_watermark.lua")));

/// A moment by the clock of Postgres, in microseconds since 1970, up to which every write reached Redis.
pub type Watermark = i64;

/// The state of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// The server processes that answer, sorted. Another process may hold older content, even if it has the same watermark.
    /// Empty if Redis does not name them.
    pub servers: Vec<String>,
    /// The role and replication id of each of them, sorted. They change when a server takes its content from another one.
    pub replication: Vec<String>,
    /// Keys that these servers have evicted since they started.
    pub evicted: u64,
    /// Up to when Redis is known to be complete; none after a flush, an eviction, or when Redis came back empty.
    pub watermark: Option<Watermark>,
    /// More has to be repaired than can be done at once: pass Redis by until then.
    pub bypass: bool,
    /// `worker cache clear` removed the watermark and may not have deleted every entry yet.
    pub cleared: bool,
    /// Why Redis rejects the commands that write an entry; none if it accepts them.
    pub rejects_writes: Option<String>,
}

impl Cache {
    /// Reads the clock and the state, and tries the commands that write an entry. Call it about once a second.
    ///
    /// # Errors
    /// When Redis does not answer, or rejects a command that reads.
    pub async fn probe(&self) -> Result<CacheState, CacheError> {
        self.read_clock().await?;
        let (info, (watermark, bypass, cleared)) = self
            .run("probe", async {
                let mut connection = self.connection().await?;
                let info: Value = redis::cmd("INFO")
                    .query_async(&mut connection)
                    .await
                    .map_err(CacheError::with_text)?;
                let state: (Option<Watermark>, Option<u8>, Option<u8>) = redis::cmd("HMGET")
                    .arg(KEY)
                    .arg(&["watermark", "bypass", "cleared"])
                    .query_async(&mut connection)
                    .await
                    .map_err(CacheError::with_text)?;
                Ok((info, state))
            })
            .await?;
        let rejects_writes = match self.try_write().await {
            Ok(()) => None,
            Err(CacheError::Refused(why)) => Some(why),
            Err(error) => return Err(error),
        };
        let mut replication = fields(&info, "master_replid");
        replication.extend(fields(&info, "role"));
        let evicted = fields(&info, "evicted_keys");
        Ok(CacheState {
            servers: fields(&info, "run_id"),
            replication,
            evicted: evicted.iter().flat_map(|count| count.parse::<u64>()).sum(),
            watermark,
            bypass: bypass.is_some(),
            cleared: cleared.is_some(),
            rejects_writes,
        })
    }

    /// Runs what writing an entry runs, on a key that no order has. Of a cluster it tries the master of that key.
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

    pub(super) async fn read_clock(&self) -> Result<Reading, CacheError> {
        let asked = Instant::now();
        let (seconds, micros): (i64, i64) = self
            .run("time", async {
                let mut connection = self.connection().await?;
                Ok(redis::cmd("TIME").query_async(&mut connection).await?)
            })
            .await?;
        let reading = Reading {
            redis_ms: seconds * 1000 + micros / 1000,
            heard: Instant::now(),
        };
        self.inner.clock.hear(reading, asked);
        Ok(reading)
    }

    /// Moves the watermark from `from` (none: it is missing) to `to`, and ends a bypass; false when it was not (any more) at
    /// `from`.
    ///
    /// # Errors
    /// When Redis does not answer or refuses.
    pub async fn move_watermark(
        &self,
        from: Option<Watermark>,
        to: Watermark,
    ) -> Result<bool, CacheError> {
        let from = from
            .map(|watermark| watermark.to_string())
            .unwrap_or_default();
        self.run("watermark", async {
            let mut connection = self.connection().await?;
            let moved: i64 = MOVE_WATERMARK
                .key(KEY)
                .arg(from)
                .arg(to)
                .invoke_async(&mut connection)
                .await?;
            Ok(moved == 1)
        })
        .await
    }

    /// Tells every api replica to pass Redis by until the watermark moves.
    ///
    /// # Errors
    /// When Redis does not answer or refuses.
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

    /// Deletes all our entries, step by step; returns how many.
    ///
    /// # Errors
    /// When Redis does not answer or refuses; some entries may be gone then.
    pub async fn clear(&self) -> Result<u64, CacheError> {
        self.walk(Visit::Delete).await
    }

    /// How many entries there are, about: one that moves meanwhile may be counted twice.
    ///
    /// # Errors
    /// When Redis does not answer or refuses.
    pub async fn count(&self) -> Result<u64, CacheError> {
        self.walk(Visit::Count).await
    }

    /// Removes every key of ours and announces it; returns how many entries there were.
    ///
    /// # Errors
    /// When Redis does not answer or refuses. The watermark goes first: the next worker that looks deletes what is left. `cleared`
    /// takes its place, because a worker writes an evicted watermark again.
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
        let nodes = self
            .run("nodes", async {
                Ok(self.connection().await?.nodes().await?)
            })
            .await?;
        let mut count = 0;
        for node in &nodes {
            count += self.walk_node(node, visit).await?;
        }
        Ok(count)
    }

    async fn walk_node(&self, node: &Node, visit: Visit) -> Result<u64, CacheError> {
        let (mut cursor, mut count) = (0_u64, 0);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(format!("{PREFIX}*"))
                .arg("COUNT")
                .arg(SCAN_COUNT);
            let (next, keys): (u64, Vec<String>) = self
                .run("scan", async {
                    Ok(self.connection().await?.query_at(node, scan).await?)
                })
                .await?;
            count += match visit {
                Visit::Delete if !keys.is_empty() => {
                    self.run("unlink", async {
                        Ok(self.connection().await?.unlink(&keys).await?)
                    })
                    .await?
                }
                Visit::Delete | Visit::Count => keys.len() as u64,
            };
            if next == 0 {
                return Ok(count);
            }
            cursor = next;
        }
    }

    /// The eviction policy, such as `allkeys-lru`, where Redis tells it.
    ///
    /// # Errors
    /// When Redis does not answer or refuses.
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

/// The values of the field `name` in an answer to INFO, sorted: one of a single server, one of each of a cluster, whose
/// answer is a map by address.
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
