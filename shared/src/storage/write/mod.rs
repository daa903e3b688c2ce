//! Writes orders to Postgres: a whole batch in one transaction, guarded by the version.
//!
//! Most orders are new, and `COPY` costs Postgres little more than half of an upsert. So the worker
//! looks up the uids first, copies the unknown orders, and upserts the rest. If another writer was
//! faster than the copy, a unique key rejects it, and the worker upserts the whole batch.
//!
//! After many batches of new orders only, the worker copies the next batch without the lookup. If
//! that batch holds a known order, a unique key rejects the copy, and the worker writes the batch
//! again with the lookup.

mod copy;
mod sequence;
mod upsert;

use std::{collections::HashSet, time::Instant};

use sqlx::{Connection, PgConnection};

use copy::Copy;
use upsert::Upserted;

pub(super) use sequence::Sequence;

use super::{
    CacheWrite, Change, ChangeSet, Class, Postgres, StorageError, postgres::Deadline,
    writer_state::WriterState,
};
use crate::fault::Moment;

/// Minimum size of a batch that is copied. For a smaller batch, the round trips of four `COPY`
/// would cost more than they save.
const WORTH_COPYING: usize = 32;

/// SQLSTATE codes that Postgres may raise for a `COPY` but not for an upsert of the same rows.
/// Binary rows have exact types, whereas an upsert converts its values to a wider column. Row-level
/// security allows no `COPY`, and Citus (`XX000`) allows none with a condition.
const COPY_REJECTED: [&str; 7] = [
    "08P01", "0A000", "22021", "22P03", "22P04", "42883", "XX000",
];

const KNOWN: &str = "SELECT order_uid::text FROM orders WHERE order_uid = ANY($1)";

/// Ends our sessions that wait, inside a transaction, for a client that was silent for five
/// seconds.
const END_FROZEN_SESSIONS: &str = "\
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE application_name = $1 AND usename = current_user AND datname = current_database() \
      AND pid <> pg_backend_pid() \
      AND wait_event = 'ClientRead' AND xact_start IS NOT NULL \
      AND greatest(state_change, query_start) < clock_timestamp() - interval '5 s'";

/// The result of writing a batch.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Whether each change, in the order of the set, is the newest version now. If not, Postgres
    /// holds the same or a newer version.
    pub won: Vec<bool>,
    /// A moment at which Postgres held the winners and no other writer could replace them. It is
    /// just before COMMIT, because the answer to COMMIT may take long.
    pub as_of: Instant,
    /// The note to finish once Redis has the winners; none if they replaced no row.
    pub cache_write: Option<CacheWrite>,
}

/// A change, with the id for its row if Postgres does not have the order yet.
struct Candidate<'c> {
    id: i64,
    change: &'c Change,
}

impl Postgres {
    /// Applies `changes` in one transaction. Skips a change whose version is not greater than the
    /// stored one, and still applies the others.
    ///
    /// # Errors
    /// When nothing was stored, or, after an error of COMMIT, when that is unknown. Repeating the
    /// call is safe.
    pub async fn apply(&self, changes: &ChangeSet) -> Result<Applied, StorageError> {
        let changes = changes.as_slice();
        let deadline = self.deadline_to_lock();
        let plan = match changes.len() {
            ..WORTH_COPYING => WritePlan::Upsert,
            WORTH_COPYING.. if !self.writer.copy_gate.is_open() => WritePlan::Upsert,
            WORTH_COPYING.. if self.writer.streak.is_long() => WritePlan::CopyAll,
            WORTH_COPYING.. => WritePlan::CopyUnknown,
        };
        match self.write(changes, plan, deadline).await {
            Err(error) if plan == WritePlan::CopyAll && error.class() == Class::Rival => {
                self.writer.streak.guessed_wrong();
                if Sequence::of_key(error.constraint()).is_some() {
                    self.pass_used_ids(&error).await?;
                }
                let result = self.write(changes, WritePlan::CopyUnknown, deadline).await;
                self.or_upsert(result, changes, deadline).await
            }
            result if plan == WritePlan::Upsert => {
                self.or_upsert_again(result, changes, deadline).await
            }
            result => self.or_upsert(result, changes, deadline).await,
        }
    }

    /// Upserts the batch if `result` is a rejection that applies to `COPY` only. Closes the gate if
    /// that succeeds. Then continues like `or_upsert_again`.
    async fn or_upsert(
        &self,
        result: Result<Applied, StorageError>,
        changes: &[Change],
        deadline: Deadline,
    ) -> Result<Applied, StorageError> {
        let rejected = match &result {
            Err(error)
                if error
                    .sqlstate()
                    .is_some_and(|code| COPY_REJECTED.contains(&code)) =>
            {
                error.to_string()
            }
            _ => return self.or_upsert_again(result, changes, deadline).await,
        };
        let result = self.write(changes, WritePlan::Upsert, deadline).await;
        if result.is_ok() && self.writer.copy_gate.close() {
            tracing::warn!(
                error = rejected,
                "COPY rejected, upsert accepted; upserting next batches"
            );
        }
        self.or_upsert_again(result, changes, deadline).await
    }

    /// Upserts the batch if `result` shows a faster writer or an id in use.
    async fn or_upsert_again(
        &self,
        result: Result<Applied, StorageError>,
        changes: &[Change],
        deadline: Deadline,
    ) -> Result<Applied, StorageError> {
        match result {
            Err(error) if error.class() == Class::Rival => {
                self.pass_used_ids(&error).await?;
                self.write(changes, WritePlan::Upsert, deadline).await
            }
            result => result,
        }
    }

    /// Drops the ids at hand and moves a sequence that returned a value in use. After a failover
    /// that set the sequence back, another worker may have got the same ids.
    async fn pass_used_ids(&self, error: &StorageError) -> Result<(), StorageError> {
        self.writer.ids.forget();
        match Sequence::of_key(error.constraint()) {
            Some(sequence) => self.pass_used_values(sequence).await,
            None => Ok(()),
        }
    }

    async fn write(
        &self,
        changes: &[Change],
        plan: WritePlan,
        deadline: Deadline,
    ) -> Result<Applied, StorageError> {
        let write = async |connection: &mut PgConnection| {
            write_batch(connection, &self.writer, changes, plan).await
        };
        self.run_batch("apply", deadline, write).await
    }

    /// Ends sessions of the same role that are frozen inside a transaction and hold locks; returns
    /// how many. The session timeouts of Postgres do not end a `COPY` that waits for its client.
    ///
    /// # Errors
    /// When Postgres does not answer, or denies the right to end sessions.
    pub async fn end_frozen_sessions(&self) -> Result<i64, StorageError> {
        let statement = sqlx::query_scalar(END_FROZEN_SESSIONS).bind(self.role.application_name());
        self.run("end_frozen_sessions", async |connection| {
            statement.fetch_one(connection).await
        })
        .await
    }
}

/// How new orders are written. Known orders and erasures are always upserted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WritePlan {
    /// Copies all orders, assuming that all are unknown.
    CopyAll,
    /// Looks up which orders are unknown and copies these.
    CopyUnknown,
    Upsert,
}

/// Writes `changes` in one transaction.
async fn write_batch(
    connection: &mut PgConnection,
    writer: &WriterState,
    changes: &[Change],
    plan: WritePlan,
) -> Result<Applied, sqlx::Error> {
    let ids = writer.ids.take(connection, changes.len()).await?;
    let copied: Vec<bool> = match plan {
        WritePlan::CopyAll => changes.iter().map(Change::is_order).collect(),
        WritePlan::CopyUnknown => {
            let known = known(connection, changes).await?;
            writer.streak.asked(known.is_empty());
            let unknown = |change: &Change| !known.contains(change.uid.as_str());
            changes
                .iter()
                .map(|change| change.is_order() && unknown(change))
                .collect()
        }
        WritePlan::Upsert => vec![false; changes.len()],
    };
    let (mut to_copy, mut to_upsert) = (Vec::new(), Vec::new());
    for ((change, id), copied) in changes.iter().zip(ids).zip(&copied) {
        let candidates = if *copied {
            &mut to_copy
        } else {
            &mut to_upsert
        };
        candidates.push(Candidate { id, change });
    }

    let copy = (!to_copy.is_empty()).then(|| Copy::of(&to_copy));
    Moment::BeforeBegin.pass();
    let mut transaction = connection.begin().await?;
    if let Some(copy) = copy {
        copy.send(&mut transaction).await?;
    }
    let upserted = match to_upsert.is_empty() {
        true => Upserted::default(),
        false => upsert::upsert(&mut transaction, &to_upsert).await?,
    };
    let as_of = Instant::now();
    Moment::BeforeCommit.pass();
    transaction.commit().await?;
    Moment::AfterCommit.pass();

    let mut upserted_won = upserted.won.into_iter();
    let won = copied
        .into_iter()
        .map(|copied| copied || upserted_won.next().unwrap_or_default())
        .collect();
    Ok(Applied {
        won,
        as_of,
        cache_write: upserted.cache_write,
    })
}

/// Returns the uids of the orders that Postgres already has.
async fn known(
    connection: &mut PgConnection,
    changes: &[Change],
) -> Result<HashSet<String>, sqlx::Error> {
    let uids: Vec<&str> = changes.iter().map(|change| change.uid.as_str()).collect();
    let known = sqlx::query_scalar(KNOWN).bind(uids).fetch_all(connection);
    Ok(known.await?.into_iter().collect())
}
