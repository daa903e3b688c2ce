//! Reverts migrations, unless that would harm a running system or lose orders unasked.

use std::{collections::BTreeSet, time::Duration};

use sqlx::{Connection, PgConnection, Row as _};
use tokio::time::{Instant, sleep};

use super::{ConnectError, MIGRATOR, Migrated, connect, migrator, required_version, version_on};

/// First number of the advisory lock that every session of a worker shares, `ordr` in ASCII. The
/// second one stands for the schema of the tables, because one database may hold several systems.
macro_rules! of_workers {
    () => {
        "1869767794"
    };
}

/// Takes the lock of workers, unless migrations are reverted.
const TRY_HOLD: &str = concat!(
    "SELECT pg_try_advisory_lock_shared(",
    of_workers!(),
    ", hashtext(current_schema()))"
);

/// Takes the lock of workers. Waits while migrations are reverted.
const HOLD: &str = concat!(
    "SELECT pg_advisory_lock_shared(",
    of_workers!(),
    ", hashtext(current_schema()))"
);

/// Takes the lock if no session of a worker holds it.
const TAKE_SCHEMA: &str = concat!(
    "SELECT pg_try_advisory_lock(",
    of_workers!(),
    ", hashtext(current_schema()))"
);

/// The sessions of workers that hold the lock.
const HOLDERS: &str = concat!(
    "SELECT a.pid, coalesce(host(a.client_addr), 'a hidden or local address') \
     FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
     WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ShareLock' AND l.objsubid = 2 \
       AND l.objid = hashtext(current_schema())::oid AND a.datname = current_database() \
       AND l.classid = ",
    of_workers!(),
    " ORDER BY a.pid"
);

/// How long a worker that has just ended may still have a session.
const LEAVING: Duration = Duration::from_secs(2);

/// Interval between two attempts to take the lock.
const ATTEMPT: Duration = Duration::from_millis(50);

/// The tables that hold orders.
const ORDERS: [&str; 4] = ["orders", "deliveries", "payments", "items"];

/// What a revert does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    /// The applied migrations.
    pub applied: usize,
    /// The migrations to revert, newest first: version and description.
    pub migrations: Vec<(i64, String)>,
    /// Whether every order is dropped.
    pub drops_orders: bool,
}

/// The reason why no migration was reverted, or why a revert failed.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// There are fewer migrations.
    #[error("--down {asked}: {} applied; write a number from 1 to {applied}", are(*applied))]
    TooMany {
        /// Number of migrations to revert.
        asked: usize,
        /// Number of applied migrations.
        applied: usize,
    },
    /// No migration is applied.
    #[error("--down: no migration is applied; nothing to revert")]
    NoneApplied,
    /// A newer version has applied migrations whose down files this version lacks.
    #[error(
        "the schema has version {found}, this worker knows versions up to {known}; run \
         `migrate --down` of the newer worker"
    )]
    Newer {
        /// The schema version of the database.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// A down file drops orders.
    #[error(
        "--down {asked} reverts migration {version}, which drops every order; write a smaller \
         number, or add --yes-drop-orders"
    )]
    DropsOrders {
        /// Number of migrations to revert.
        asked: usize,
        /// The migration.
        version: i64,
    },
    /// Workers would write to the schema meanwhile.
    #[error(
        "{sessions} sessions of workers use this schema (from {from}; pid {pids}); stop every \
         worker first"
    )]
    Workers {
        /// Number of sessions. A worker has several.
        sessions: usize,
        /// Addresses of the workers.
        from: String,
        /// Process ids of the sessions in Postgres.
        pids: String,
    },
    /// Another process reverts migrations.
    #[error("another `worker migrate --down` is running; wait for its end")]
    Busy,
    /// The database cannot be reached, or a down file fails.
    #[error("cannot revert migrations: {0}")]
    Database(#[from] sqlx::Error),
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

fn are(applied: usize) -> String {
    match applied {
        1 => "only 1 migration is".to_owned(),
        more => format!("only {more} migrations are"),
    }
}

/// Holds the lock of workers until the session ends. Waits while migrations are reverted, and logs
/// that: the caller only sees that it gets no connection.
pub(in crate::storage) async fn hold_schema(
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    // One round trip, where a prepared statement takes two.
    let row = sqlx::raw_sql(TRY_HOLD).fetch_one(&mut *connection).await?;
    if !row.try_get(0)? {
        tracing::warn!("waiting for the end of `worker migrate --down`");
        sqlx::raw_sql(HOLD).execute(connection).await?;
    }
    Ok(())
}

/// Reverts the newest `steps` applied migrations. Calls `announce` before the first one.
///
/// Holds a lock meanwhile that keeps workers from connecting.
///
/// # Errors
/// When fewer migrations are applied, workers of this schema run, orders would be dropped without
/// `drop_orders`, the schema is newer than this version, the database cannot be reached, or a down
/// file fails. Each migration is reverted in its own transaction.
pub async fn migrate_down(
    url: &str,
    steps: usize,
    drop_orders: bool,
    announce: impl FnOnce(&Revert),
) -> Result<Migrated, RevertError> {
    let mut connection = connect(url).await?;
    let from = version_on(&mut connection).await?;
    let (revert, target) = plan(&mut connection, from, steps, drop_orders).await?;
    keep_workers_out(&mut connection).await?;
    announce(&revert);
    migrator()
        .undo(&mut connection, target)
        .await
        .map_err(sqlx::Error::from)?;
    let to = version_on(&mut connection).await?;
    connection.close().await?;
    Ok(Migrated { from, to })
}

/// Returns what the revert does, and the version to which it goes back.
async fn plan(
    connection: &mut PgConnection,
    from: i64,
    steps: usize,
    drop_orders: bool,
) -> Result<(Revert, i64), RevertError> {
    let known = required_version();
    if from > known {
        return Err(RevertError::Newer { found: from, known });
    }
    let applied: Vec<(i64, String)> = match from {
        0 => Vec::new(),
        _ => {
            sqlx::query_as(
                "SELECT version::int8, description::text FROM _sqlx_migrations WHERE success \
                 ORDER BY version DESC",
            )
            .fetch_all(connection)
            .await?
        }
    };
    match applied.len() {
        0 => return Err(RevertError::NoneApplied),
        applied if steps == 0 || steps > applied => {
            let asked = steps;
            return Err(RevertError::TooMany { asked, applied });
        }
        _ => {}
    }
    let migrations = applied[..steps].to_vec();
    let dropping = migrations
        .iter()
        .find(|(version, _)| drops_orders(*version));
    if let Some((version, _)) = dropping.filter(|_| !drop_orders) {
        return Err(RevertError::DropsOrders {
            asked: steps,
            version: *version,
        });
    }
    let target = applied.get(steps).map_or(0, |(version, _)| *version);
    let revert = Revert {
        applied: applied.len(),
        drops_orders: dropping.is_some(),
        migrations,
    };
    Ok((revert, target))
}

/// Returns whether the down file of this migration drops or empties a table that holds orders.
pub(super) fn drops_orders(version: i64) -> bool {
    MIGRATOR
        .iter()
        .filter(|migration| {
            migration.version == version && migration.migration_type.is_down_migration()
        })
        .any(|migration| has_dropping_statement(migration.sql.as_str()))
}

fn has_dropping_statement(sql: &str) -> bool {
    let lines = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    let sql = lines.collect::<Vec<_>>().join(" ").to_lowercase();
    sql.split(';').any(|statement| {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words: Vec<&str> = statement
            .split(|c: char| !is_word(c))
            .filter(|word| !word.is_empty())
            .collect();
        let drops = match words[..] {
            ["drop", "schema", ..] => return true,
            ["drop", "table", ..] | ["truncate", ..] | ["delete", "from", ..] => true,
            _ => false,
        };
        drops && words.iter().any(|word| ORDERS.contains(word))
    })
}

/// Takes the lock that keeps workers from connecting. A session that ends releases its lock a
/// moment later than the worker exits.
async fn keep_workers_out(connection: &mut PgConnection) -> Result<(), RevertError> {
    let deadline = Instant::now() + LEAVING;
    loop {
        let is_taken: bool = sqlx::query_scalar(TAKE_SCHEMA)
            .fetch_one(&mut *connection)
            .await?;
        if is_taken {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let holders: Vec<(i32, String)> =
                sqlx::query_as(HOLDERS).fetch_all(&mut *connection).await?;
            return Err(running(&holders));
        }
        sleep(ATTEMPT).await;
    }
}

fn running(holders: &[(i32, String)]) -> RevertError {
    if holders.is_empty() {
        return RevertError::Busy;
    }
    let from: BTreeSet<&str> = holders.iter().map(|(_, from)| from.as_str()).collect();
    let pids: Vec<String> = holders.iter().map(|(pid, _)| pid.to_string()).collect();
    RevertError::Workers {
        sessions: holders.len(),
        from: from.into_iter().collect::<Vec<_>>().join(", "),
        pids: pids.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[test]
    fn statements_that_drop_orders_are_found() {
        for (sql, drops) in [
            ("DROP TABLE items;\nDROP TABLE orders;", true),
            ("drop table if exists public.payments cascade", true),
            ("-- DROP TABLE orders;\nDROP TABLE cache_writes;", false),
            ("TRUNCATE deliveries;", true),
            ("DELETE FROM orders WHERE true;", true),
            ("DROP SCHEMA public CASCADE", true),
            ("DROP TABLE orders_of_others;", false),
            ("ALTER TABLE orders DROP COLUMN representation;", false),
            ("DROP INDEX idx_orders_newest;", false),
        ] {
            assert_eq!(has_dropping_statement(sql), drops, "{sql}");
        }
    }

    /// Stores an order, reverts one migration after another, and looks whether the order is left.
    #[tokio::test]
    async fn each_migration_that_drops_orders_is_known() {
        let database = TestDatabase::migrated().await;
        database
            .execute(
                "INSERT INTO orders (order_uid, track_number, entry, locale, internal_signature, \
                 customer_id, delivery_service, shard_key, sm_id, date_created, oof_shard, \
                 source_timestamp_ms, source_offset, source_partition) \
                 VALUES ('u', 't', 'e', 'en', '', 'c', 'd', '1', 1, now(), '1', 1, 1, 1)",
            )
            .await;
        let mut versions: Vec<i64> = MIGRATOR
            .iter()
            .filter(|migration| migration.migration_type.is_up_migration())
            .map(|migration| migration.version)
            .collect();
        versions.sort_unstable();
        let mut is_left = true;
        for version in versions.into_iter().rev() {
            migrate_down(&database.url, 1, true, |_| ()).await.unwrap();
            let exists = "SELECT to_regclass('orders') IS NOT NULL";
            let was_left = std::mem::replace(
                &mut is_left,
                database.value::<bool>(exists).await
                    && database.value::<i64>("SELECT count(*) FROM orders").await == 1,
            );
            assert_eq!(drops_orders(version), was_left && !is_left, "{version}");
        }
        assert!(!is_left, "the first migration creates the table");
    }
}
