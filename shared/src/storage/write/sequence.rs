//! Sequences that are behind the ids they are to give.

use sqlx::{Connection, PgConnection};
use tokio::time::timeout_at;

use super::super::{Postgres, StorageError};

/// A column whose values come from a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Sequence {
    /// `orders.id`.
    Orders,
    /// `cache_writes.id`.
    CacheWrites,
    /// `cache_repairs.mark`.
    CacheRepairs,
}

/// Workers move a sequence one after the other; the number is arbitrary and means this lock in every database.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7205106513092174113)";

/// At most so many steps in one statement; a step of `orders.id` is a whole block.
const MAX_STEPS: i64 = 1_000_000;

/// Takes as many values as it needs to pass the greatest value of the column, at most `$1`; returns how many were needed.
/// Only `nextval` moves a sequence that others use meanwhile without ever taking it back, and it needs no right that a
/// worker does not have.
macro_rules! pass {
    ($table:literal, $column:literal) => {
        concat!(
            "WITH behind AS ( \
                 SELECT seqrelid::regclass AS sequence, \
                        ((SELECT max(",
            $column,
            ")::int8 FROM ",
            $table,
            ") - coalesce(pg_sequence_last_value(seqrelid), seqstart - seqincrement)) / seqincrement AS steps \
                 FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence('",
            $table,
            "', '",
            $column,
            "')::regclass) \
             SELECT greatest(steps, 0), count(nextval(sequence)) \
             FROM behind CROSS JOIN generate_series(1, least(steps, $1)) GROUP BY steps"
        )
    };
}

impl Sequence {
    /// The sequence of the column whose key `constraint` is.
    pub(in crate::storage) fn of_key(constraint: Option<&str>) -> Option<Self> {
        match constraint? {
            "orders_pkey" => Some(Self::Orders),
            "cache_writes_pkey" => Some(Self::CacheWrites),
            "cache_repairs_mark_key" => Some(Self::CacheRepairs),
            _ => None,
        }
    }

    fn pass(self) -> &'static str {
        match self {
            Self::Orders => pass!("orders", "id"),
            Self::CacheWrites => pass!("cache_writes", "id"),
            Self::CacheRepairs => pass!("cache_repairs", "mark"),
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Orders => "orders.id",
            Self::CacheWrites => "cache_writes.id",
            Self::CacheRepairs => "cache_repairs.mark",
        }
    }
}

impl Postgres {
    /// Moves `sequence` past the greatest value of its column if it is behind, as after logical replication or a restore
    /// of single tables.
    ///
    /// # Errors
    /// When it may still be behind.
    pub(in crate::storage) async fn pass_used_values(
        &self,
        sequence: Sequence,
    ) -> Result<(), StorageError> {
        loop {
            let mut lease = self.lease("pass_used_values").await?;
            let answer = timeout_at(lease.deadline, pass(&mut lease.connection, sequence)).await;
            let steps = lease.finish(answer)?;
            if steps > 0 {
                tracing::warn!(
                    column = sequence.column(),
                    steps = steps.min(MAX_STEPS),
                    "sequence was behind its column; moved it past the greatest value"
                );
            }
            if steps <= MAX_STEPS {
                return Ok(());
            }
        }
    }
}

/// Returns how many steps the sequence was behind.
async fn pass(connection: &mut PgConnection, sequence: Sequence) -> Result<i64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK).execute(&mut *transaction).await?;
    let behind: Option<(i64, i64)> = sqlx::query_as(sequence.pass())
        .bind(MAX_STEPS)
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(behind.map_or(0, |(steps, _)| steps))
}
