//! Orders into Postgres: a whole batch in one transaction, guarded by the version.
//!
//! Most orders are new, and `COPY` costs Postgres little more than half of what an upsert costs. So the uids are looked up
//! first; what is unknown is copied, the rest upserted. Where another writer was faster than the copy, a key says so, and
//! the whole batch is upserted. After many batches of new orders alone the next one is copied without the look-up; where
//! it holds a known order all the same, a key says that, too, and the batch begins anew with the look-up.

mod copy;
mod copy_gate;
mod ids;
mod rows;
mod sequence;
mod streak;
mod upsert;

use std::{collections::HashSet, time::Instant};

use sqlx::{Connection, PgConnection};
use tokio::time::timeout_at;

use copy::Copy;
use upsert::Upserted;

pub(super) use copy_gate::CopyGate;
pub(super) use ids::IdBlocks;
pub(super) use sequence::Sequence;
pub(super) use streak::Streak;

use super::{CacheWrite, Change, ChangeSet, Class, Postgres, StorageError, postgres::Deadline};
use crate::fault::Moment;

/// A smaller batch is upserted: the round trips of four `COPY` would cost it more than they save.
const WORTH_COPYING: usize = 32;

/// Answers to a `COPY` that an upsert of the same rows may not get. Binary rows have exact types, where an upsert converts
/// its values to a column that is wider. Row-level security allows no `COPY`, and Citus (`XX000`) none with a condition.
const COPY_REFUSED: [&str; 7] = [
    "08P01", "0A000", "22021", "22P03", "22P04", "42883", "XX000",
];

const KNOWN: &str = "SELECT order_uid::text FROM orders WHERE order_uid = ANY($1)";

/// Ends sessions of ours that wait, inside a transaction, for a client that has not spoken for five seconds.
const END_FROZEN_SESSIONS: &str = "\
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE application_name = $1 AND usename = current_user AND datname = current_database() AND pid <> pg_backend_pid() \
      AND wait_event = 'ClientRead' AND xact_start IS NOT NULL \
      AND greatest(state_change, query_start) < clock_timestamp() - interval '5 s'";

/// What a batch did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// For each change, in the order of the set, whether it is the newest version now; if not, Postgres holds the same
    /// or a newer one.
    pub won: Vec<bool>,
    /// A moment at which Postgres held the winners and nobody could replace them: just before COMMIT, for its answer may be
    /// long on its way.
    pub as_of: Instant,
    /// To be finished once Redis has learnt of the winners; none where they replaced nothing.
    pub cache_write: Option<CacheWrite>,
}

/// A change, with the id of its row if Postgres does not have the order yet.
struct Candidate<'c> {
    id: i64,
    change: &'c Change,
}

impl Postgres {
    /// Applies `changes` in one transaction. A change whose version is not greater than the stored one is refused, and so
    /// is nothing but itself.
    ///
    /// # Errors
    /// When nothing was stored, or, for an error of COMMIT, when that is unknown: the same call again is harmless.
    pub async fn apply(&self, changes: &ChangeSet) -> Result<Applied, StorageError> {
        let changes = changes.as_slice();
        let deadline = self.deadline_to_lock();
        let way = match changes.len() {
            ..WORTH_COPYING => Way::Upsert,
            WORTH_COPYING.. if !self.copy_gate.is_open() => Way::Upsert,
            WORTH_COPYING.. if self.streak.is_long() => Way::CopyAll,
            WORTH_COPYING.. => Way::CopyUnknown,
        };
        match self.write(changes, way, deadline).await {
            Err(error) if way == Way::CopyAll && error.class() == Class::Rival => {
                self.streak.guessed_wrong();
                if Sequence::of_key(error.constraint()).is_some() {
                    self.pass_used_ids(&error).await?;
                }
                let result = self.write(changes, Way::CopyUnknown, deadline).await;
                self.or_upsert(result, changes, deadline).await
            }
            result if way == Way::Upsert => self.or_upsert_again(result, changes, deadline).await,
            result => self.or_upsert(result, changes, deadline).await,
        }
    }

    /// After a copy: upserts where `result` says that this may succeed.
    async fn or_upsert(
        &self,
        result: Result<Applied, StorageError>,
        changes: &[Change],
        deadline: Deadline,
    ) -> Result<Applied, StorageError> {
        let refused = match &result {
            Err(error)
                if error
                    .sqlstate()
                    .is_some_and(|code| COPY_REFUSED.contains(&code)) =>
            {
                error.to_string()
            }
            _ => return self.or_upsert_again(result, changes, deadline).await,
        };
        let result = self.write(changes, Way::Upsert, deadline).await;
        if result.is_ok() && self.copy_gate.close() {
            tracing::warn!(
                error = refused,
                "COPY rejected, upsert accepted; upserting the next batches"
            );
        }
        self.or_upsert_again(result, changes, deadline).await
    }

    /// Upserts, once more if need be, where another writer was faster or the ids are in use.
    async fn or_upsert_again(
        &self,
        result: Result<Applied, StorageError>,
        changes: &[Change],
        deadline: Deadline,
    ) -> Result<Applied, StorageError> {
        match result {
            Err(error) if error.class() == Class::Rival => {
                self.pass_used_ids(&error).await?;
                self.write(changes, Way::Upsert, deadline).await
            }
            result => result,
        }
    }

    /// Takes no more ids out of the blocks at hand, which a failover that took the sequence back may have given to a rival,
    /// and moves the sequence that gave a value in use.
    async fn pass_used_ids(&self, error: &StorageError) -> Result<(), StorageError> {
        self.ids.forget();
        match Sequence::of_key(error.constraint()) {
            Some(sequence) => self.pass_used_values(sequence).await,
            None => Ok(()),
        }
    }

    async fn write(
        &self,
        changes: &[Change],
        way: Way,
        deadline: Deadline,
    ) -> Result<Applied, StorageError> {
        let mut lease = self.lease_for_batch("apply", deadline).await?;
        let answer = timeout_at(
            lease.deadline,
            write(&mut lease.connection, &self.ids, &self.streak, changes, way),
        )
        .await;
        lease.finish(answer)
    }

    /// Ends sessions of the same role that are frozen inside a transaction and hold locks; returns how many. The session
    /// timeouts of Postgres do not end a `COPY` that waits for its client.
    ///
    /// # Errors
    /// When Postgres does not answer, or refuses the right to do so.
    pub async fn end_frozen_sessions(&self) -> Result<i64, StorageError> {
        let mut lease = self.lease("end_frozen_sessions").await?;
        let statement = sqlx::query_scalar(END_FROZEN_SESSIONS).bind(self.role.application_name());
        let answer = timeout_at(lease.deadline, statement.fetch_one(&mut **lease.connection)).await;
        lease.finish(answer)
    }
}

/// How new orders are written; known ones and erasures are always upserted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All are taken to be unknown.
    CopyAll,
    /// Postgres is asked which are.
    CopyUnknown,
    Upsert,
}

async fn write(
    connection: &mut PgConnection,
    ids: &IdBlocks,
    streak: &Streak,
    changes: &[Change],
    way: Way,
) -> Result<Applied, sqlx::Error> {
    let ids = ids.take(connection, changes.len()).await?;
    let copied: Vec<bool> = match way {
        Way::CopyAll => changes.iter().map(Change::is_order).collect(),
        Way::CopyUnknown => {
            let known = known(connection, changes).await?;
            streak.asked(known.is_empty());
            let unknown = |change: &Change| !known.contains(change.uid.as_str());
            changes
                .iter()
                .map(|change| change.is_order() && unknown(change))
                .collect()
        }
        Way::Upsert => vec![false; changes.len()],
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

/// Which of the orders Postgres knows.
async fn known(
    connection: &mut PgConnection,
    changes: &[Change],
) -> Result<HashSet<String>, sqlx::Error> {
    let uids: Vec<&str> = changes.iter().map(|change| change.uid.as_str()).collect();
    let known = sqlx::query_scalar(KNOWN).bind(uids).fetch_all(connection);
    Ok(known.await?.into_iter().collect())
}
