//! What Redis may lack: writes in progress, marks for failed writes, and orders that changed since
//! a moment. Also the moment up to which Redis was complete.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Postgres, StorageError, write::Sequence};
use crate::{DatabaseTime, order::OrderUid};

/// An order whose entry in Redis may be older than Postgres.
#[derive(Clone, Debug)]
pub struct RepairMark {
    /// The uid of the order.
    pub uid: OrderUid,
    /// The number of the mark. It changes when the order is marked again.
    mark: i64,
}

/// The note of a write to Redis that is in progress. The transaction that replaces the orders
/// stores the note, so it outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheWrite(pub(super) i64);

/// The last time that a worker saw Redis complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteCache {
    /// Redis had every write up to this moment.
    pub until: DatabaseTime,
    /// The server processes that answered.
    pub servers: Vec<String>,
    /// The age of that moment by the Postgres clock.
    pub age: Duration,
}

/// What Postgres records about Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheKnowledge {
    /// How long Redis may have lacked a change; zero if it lacks none.
    pub oldest_repair: Duration,
    /// When a worker last saw Redis complete; none if never.
    pub complete: Option<CompleteCache>,
}

/// Subquery: the time since which Redis may lack a change; null if it lacks none.
macro_rules! oldest {
    () => {
        "(SELECT min(since) FROM (SELECT min(marked_at) AS since FROM cache_repairs \
         UNION ALL SELECT min(started_at) FROM cache_writes) AS unfinished)"
    };
}

const KNOWLEDGE: &str = concat!(
    "SELECT coalesce(extract(epoch FROM now() - ",
    oldest!(),
    "), 0)::float8, complete_until::timestamptz, servers::text[], \
      extract(epoch FROM now() - complete_until)::float8 \
     FROM (VALUES (true)) AS always (only_row) LEFT JOIN complete_cache USING (only_row)"
);

const REPAIRED_UP_TO: &str = concat!("SELECT least(now(), ", oldest!(), ")::timestamptz");

const MARK: &str = "\
    INSERT INTO cache_repairs (order_uid) SELECT unnest($1::text[]) \
    ON CONFLICT (order_uid) DO UPDATE SET mark = DEFAULT";

/// Deletes in the order of the uids, and so locks rows in the same order as
/// [`Postgres::mark_for_repair`].
const CLEAR: &str = "\
    DELETE FROM cache_repairs USING ( \
        SELECT r.order_uid FROM cache_repairs r \
        JOIN unnest($1::text[], $2::int8[]) AS u (order_uid, mark) \
          ON r.order_uid = u.order_uid AND r.mark = u.mark \
        ORDER BY r.order_uid COLLATE \"C\" FOR UPDATE OF r) repaired \
    WHERE cache_repairs.order_uid = repaired.order_uid";

impl Postgres {
    /// Stores a repair mark for each of `uids`: its entry in Redis may be older than Postgres.
    ///
    /// # Errors
    /// When the marks may not be stored.
    pub async fn mark_for_repair(&self, uids: &[OrderUid]) -> Result<(), StorageError> {
        let mut uids: Vec<&str> = uids.iter().map(OrderUid::as_str).collect();
        uids.sort_unstable();
        uids.dedup();
        match self.mark(&uids).await {
            Err(error) => match Sequence::of_key(error.constraint()) {
                Some(sequence) => {
                    self.pass_used_values(sequence).await?;
                    self.mark(&uids).await
                }
                None => Err(error),
            },
            marked => marked,
        }
    }

    async fn mark(&self, uids: &[&str]) -> Result<(), StorageError> {
        let statement = sqlx::query(MARK).bind(uids);
        self.run("mark_for_repair", async |connection| {
            statement.execute(connection).await
        })
        .await
        .map(drop)
    }

    /// Returns the oldest `limit` marks behind `after`, or from the first one on.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn repair_marks(
        &self,
        after: Option<&RepairMark>,
        limit: u32,
    ) -> Result<Vec<RepairMark>, StorageError> {
        let statement = sqlx::query_as(
            "SELECT order_uid::text, mark::int8 FROM cache_repairs \
             WHERE mark > $1 ORDER BY mark LIMIT $2",
        )
        .bind(after.map_or(0, |mark| mark.mark))
        .bind(i64::from(limit));
        let rows: Vec<(String, i64)> = self
            .run("repair_marks", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        rows.into_iter()
            .map(|(uid, mark)| {
                Ok(RepairMark {
                    uid: parse(&uid)?,
                    mark,
                })
            })
            .collect()
    }

    /// Removes `marks`, except those that were set again after they were read.
    ///
    /// # Errors
    /// When the marks may still exist.
    pub async fn clear_repair_marks(&self, marks: &[RepairMark]) -> Result<(), StorageError> {
        let (uids, numbers): (Vec<&str>, Vec<i64>) = marks
            .iter()
            .map(|mark| (mark.uid.as_str(), mark.mark))
            .unzip();
        let statement = sqlx::query(CLEAR).bind(uids).bind(numbers);
        self.run("clear_repair_marks", async |connection| {
            statement.execute(connection).await
        })
        .await
        .map(drop)
    }

    /// Returns the oldest `limit` writes that have been in progress for longer than `patience`,
    /// each with its orders. The workers that began them have died or hang.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn abandoned_cache_writes(
        &self,
        patience: Duration,
        limit: u32,
    ) -> Result<Vec<(CacheWrite, Vec<OrderUid>)>, StorageError> {
        let statement = sqlx::query_as(
            "SELECT id::int8, order_uids::text[] FROM cache_writes \
             WHERE started_at < now() - make_interval(secs => $1) ORDER BY id LIMIT $2",
        )
        .bind(patience.as_secs_f64())
        .bind(i64::from(limit));
        let rows: Vec<(i64, Vec<String>)> = self
            .run("abandoned_cache_writes", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        rows.into_iter()
            .map(|(id, uids)| {
                let uids = uids
                    .iter()
                    .map(|uid| parse(uid))
                    .collect::<Result<_, _>>()?;
                Ok((CacheWrite(id), uids))
            })
            .collect()
    }

    /// Removes the notes of `writes`. Call it once Redis has them, or a repair mark covers what it
    /// lacks.
    ///
    /// # Errors
    /// When the notes may still exist. The writes then soon count as abandoned.
    pub async fn finish_cache_writes(&self, writes: &[CacheWrite]) -> Result<(), StorageError> {
        let ids: Vec<i64> = writes.iter().map(|write| write.0).collect();
        let statement = sqlx::query("DELETE FROM cache_writes WHERE id = ANY($1)").bind(ids);
        self.run("finish_cache_writes", async |connection| {
            statement.execute(connection).await
        })
        .await
        .map(drop)
    }

    /// Returns what Postgres records about Redis.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn cache_knowledge(&self) -> Result<CacheKnowledge, StorageError> {
        type Row = (f64, Option<DateTime<Utc>>, Option<Vec<String>>, Option<f64>);
        let statement = sqlx::query_as(KNOWLEDGE);
        let (oldest, until, servers, age): Row = self
            .run("cache_knowledge", async |connection| {
                statement.fetch_one(connection).await
            })
            .await?;
        let complete = until.zip(servers).map(|(until, servers)| CompleteCache {
            until: DatabaseTime(until.timestamp_micros()),
            servers,
            age: seconds(age.unwrap_or_default()),
        });
        Ok(CacheKnowledge {
            oldest_repair: seconds(oldest),
            complete,
        })
    }

    /// Returns the moment up to which no write to Redis is unfinished: now, or the time of the
    /// oldest mark or note.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn repaired_up_to(&self) -> Result<DatabaseTime, StorageError> {
        self.time(REPAIRED_UP_TO).await
    }

    /// Records that the cache on `servers` is complete up to `until`.
    ///
    /// # Errors
    /// When the record may not be stored.
    pub async fn remember_complete_cache(
        &self,
        until: DatabaseTime,
        servers: &[String],
    ) -> Result<(), StorageError> {
        let until = to_utc(until)?;
        let statement = sqlx::query(
            "INSERT INTO complete_cache (complete_until, servers) VALUES ($1, $2) \
             ON CONFLICT (only_row) DO UPDATE \
             SET complete_until = EXCLUDED.complete_until, servers = EXCLUDED.servers",
        )
        .bind(until)
        .bind(servers);
        self.run("remember_complete_cache", async |connection| {
            statement.execute(connection).await
        })
        .await
        .map(drop)
    }

    /// Returns the time of the Postgres clock.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn now(&self) -> Result<DatabaseTime, StorageError> {
        self.time("SELECT now()").await
    }

    async fn time(&self, query: &'static str) -> Result<DatabaseTime, StorageError> {
        let statement = sqlx::query_scalar(query);
        let time: DateTime<Utc> = self
            .run("time", async |connection| {
                statement.fetch_one(connection).await
            })
            .await?;
        Ok(DatabaseTime(time.timestamp_micros()))
    }

    /// Returns the ids of at most `limit` orders whose row was written at or after `since`.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn changed_since(
        &self,
        since: DatabaseTime,
        limit: u32,
    ) -> Result<Vec<i64>, StorageError> {
        let since = to_utc(since)?;
        let statement =
            sqlx::query_scalar("SELECT id::int8 FROM orders WHERE updated_at >= $1 LIMIT $2")
                .bind(since)
                .bind(i64::from(limit));
        self.run("changed_since", async |connection| {
            statement.fetch_all(connection).await
        })
        .await
    }
}

fn to_utc(time: DatabaseTime) -> Result<DateTime<Utc>, StorageError> {
    DateTime::from_timestamp_micros(time.0).ok_or_else(|| {
        StorageError::Unexpected("a time outside the range of timestamps".to_owned())
    })
}

/// Converts elapsed seconds. Returns zero if the mark or note is newer than the transaction of the
/// statement.
fn seconds(passed: f64) -> Duration {
    Duration::try_from_secs_f64(passed).unwrap_or_default()
}

fn parse(uid: &str) -> Result<OrderUid, StorageError> {
    OrderUid::parse(uid).map_err(|error| StorageError::Unexpected(error.to_string()))
}
