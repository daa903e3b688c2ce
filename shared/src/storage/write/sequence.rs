//! Moves sequences that are behind the values in use.

use sqlx::{Connection, PgConnection};

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

/// Lets one worker at a time move a sequence. The number is arbitrary, and identifies this lock in
/// every database.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7205106513092174113)";

/// Maximum number of steps in one statement. A step of `orders.id` is a whole block.
const MAX_STEPS: i64 = 1_000_000;

/// Moves a sequence past the greatest value of its column, by at most `$1` steps; returns how many
/// steps were needed. Only `nextval` moves a sequence in concurrent use without ever setting it
/// back, and it needs no privilege that a worker lacks.
macro_rules! pass {
    ($table:literal, $column:literal) => {
        concat!(
            "WITH behind AS ( \
                 SELECT seqrelid::regclass AS sequence, \
                        ((SELECT max(",
            $column,
            ")::int8 FROM ",
            $table,
            ") - coalesce(pg_sequence_last_value(seqrelid), seqstart - seqincrement)) \
                 / seqincrement AS steps \
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
    /// Returns the sequence of the column whose key is `constraint`.
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
    /// Moves `sequence` past the greatest value of its column if it is behind, such as after
    /// logical replication or a restore of single tables.
    ///
    /// # Errors
    /// When the sequence may still be behind.
    pub(in crate::storage) async fn pass_used_values(
        &self,
        sequence: Sequence,
    ) -> Result<(), StorageError> {
        loop {
            let pass = async |connection: &mut PgConnection| pass(connection, sequence).await;
            let steps = self.run("pass_used_values", pass).await?;
            if steps > 0 {
                tracing::warn!(
                    column = sequence.column(),
                    steps = steps.min(MAX_STEPS),
                    "moved a sequence that was behind its column"
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
