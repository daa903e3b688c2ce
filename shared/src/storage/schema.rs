//! The database schema: its migrations, and whether it is new enough for this version of the
//! program.

use sqlx::{Connection, PgConnection, migrate::Migrator};

use super::{Postgres, StorageError, migration_lock};

/// The embedded migrations of this version.
static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Returns the lowest schema version that this version of the program works with.
pub fn required_version() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// The result of migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The schema version before, 0 for an empty database.
    pub from: i64,
    /// The schema version now.
    pub to: i64,
}

/// Applies the missing migrations. Leaves a schema that is newer than this version unchanged.
///
/// # Errors
/// When the database cannot be reached or a migration fails. Each migration runs in its own
/// transaction, except those that build an index without blocking writes.
pub async fn migrate(url: &str) -> Result<Migrated, sqlx::Error> {
    let mut connection = connect(url).await?;
    let from = version_on(&mut connection).await?;
    migration_lock::drop_unfinished_indexes(&mut connection).await?;
    migrator()
        .set_ignore_missing(true)
        .run(&mut connection)
        .await?;
    let to = version_on(&mut connection).await?;
    connection.close().await?;
    Ok(Migrated { from, to })
}

/// Reverts the newest `steps` applied migrations.
///
/// # Errors
/// When the database cannot be reached, a down file fails, or the schema is newer than this
/// version, which then lacks the down files.
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
    migrator().undo(&mut connection, target).await?;
    let to = version_on(&mut connection).await?;
    connection.close().await?;
    Ok(Migrated { from, to })
}

/// The migrations, for a session that already holds the lock.
fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator.set_locking(false);
    migrator
}

/// Opens a session that alone migrates the database. It has no statement timeout, even if the
/// database or the role sets one.
async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("SET statement_timeout = 0")
        .execute(&mut connection)
        .await?;
    migration_lock::take(&mut connection).await?;
    Ok(connection)
}

async fn version_on(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // The table does not exist before the first migration. A separate statement checks this,
    // because a statement that names a missing table fails as a whole.
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
    /// Returns the schema version of the database, 0 before the first migration. Compare it with
    /// [`required_version`].
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn schema_version(&self) -> Result<i64, StorageError> {
        self.run("schema_version", version_on).await
    }
}
