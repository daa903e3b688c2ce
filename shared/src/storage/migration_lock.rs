//! What migrations that build an index with `CREATE INDEX CONCURRENTLY` need beyond sqlx: a lock
//! that they do not wait for, and the removal of an index that was left unfinished.

use sqlx::{
    PgConnection,
    migrate::{Migrate as _, MigrateError},
};

/// SQLSTATE of a wait for a lock that timed out.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Waits until no other process migrates the database, and takes the lock of sqlx. The lock ends
/// with the session.
///
/// A session that waits inside a statement holds a snapshot, and an index build waits for all
/// snapshots. With the build in the session that has the lock, that is a deadlock. So each wait is
/// a short statement.
pub(super) async fn take(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Shorter than `deadlock_timeout`, after which Postgres would end one of the sessions.
    execute(connection, "SET lock_timeout = '100ms'").await?;
    let mut is_logged = false;
    while let Err(error) = connection.lock().await {
        if !is_taken(&error) {
            return Err(error.into());
        }
        if !std::mem::replace(&mut is_logged, true) {
            tracing::info!("waiting for another migration of this database");
        }
    }
    execute(connection, "RESET lock_timeout").await
}

/// Drops our indexes that are invalid: their build was interrupted, so their migration runs again.
pub(super) async fn drop_unfinished_indexes(
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let drop = "\
        DO $$ DECLARE unfinished regclass; BEGIN \
            FOR unfinished IN \
                SELECT indexrelid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid \
                WHERE NOT indisvalid AND relname LIKE 'idx\\_%' \
                  AND relnamespace = current_schema()::regnamespace \
            LOOP EXECUTE 'DROP INDEX ' || unfinished; END LOOP; \
        END $$";
    execute(connection, drop).await
}

fn is_taken(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(sqlx::Error::Database(error)) => {
            error.code().as_deref() == Some(LOCK_NOT_AVAILABLE)
        }
        _ => false,
    }
}

async fn execute(
    connection: &mut PgConnection,
    statement: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await.map(drop)
}
