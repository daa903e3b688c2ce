//! The schema: its migrations, and whether it is new enough for this version.

use sqlx::{Connection, PgConnection, migrate::Migrator};
use tokio::time::timeout_at;

use super::{Postgres, StorageError};

/// The migrations of this version, embedded.
static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// The schema version that this version of the program needs at least.
pub fn required_version() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// What migrations did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Schema version before, 0 for an empty database.
    pub from: i64,
    /// Schema version now.
    pub to: i64,
}

/// Applies the migrations that are missing. A schema newer than this version is left alone.
///
/// # Errors
/// When the database cannot be reached or a migration fails (each runs in a transaction of its own).
pub async fn migrate(url: &str) -> Result<Migrated, sqlx::Error> {
    let mut connection = connect(url).await?;
    let from = version_on(&mut connection).await?;
    let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator
        .set_ignore_missing(true)
        .run(&mut connection)
        .await?;
    let to = version_on(&mut connection).await?;
    connection.close().await?;
    Ok(Migrated { from, to })
}

/// Undoes the newest `steps` migrations that are applied.
///
/// # Errors
/// When the database cannot be reached, is newer than this version (which then lacks the down files), or a down file
/// fails.
pub async fn migrate_down(url: &str, steps: usize) -> Result<Migrated, sqlx::Error> {
    let mut connection = connect(url).await?;
    let from = version_on(&mut connection).await?;
    if from > required_version() {
        return Err(sqlx::Error::Migrate(Box::new(
            sqlx::migrate::MigrateError::VersionTooNew(from, required_version()),
        )));
    }
    let mut versions: Vec<i64> = MIGRATOR
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration() && migration.version <= from)
        .map(|migration| migration.version)
        .collect();
    versions.sort_unstable();
    let target = versions.iter().rev().nth(steps).copied().unwrap_or(0);
    MIGRATOR.undo(&mut connection, target).await?;
    let to = version_on(&mut connection).await?;
    connection.close().await?;
    Ok(Migrated { from, to })
}

/// A session whose statements may take as long as they need, whatever the database or the role sets for those of others.
async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("SET statement_timeout = 0")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

async fn version_on(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // The table is absent before the first migration; asked for in a statement of its own, for a statement that names a
    // missing table fails as a whole.
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0)::int8 FROM _sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await
}

impl Postgres {
    /// The schema version of the database, 0 where no migration was applied yet. Compare with [`required_version`].
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn schema_version(&self) -> Result<i64, StorageError> {
        let mut lease = self.lease("schema_version").await?;
        let answer = timeout_at(lease.deadline, version_on(&mut lease.connection)).await;
        lease.finish(answer)
    }
}
