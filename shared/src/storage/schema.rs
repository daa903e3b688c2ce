//! The database schema: its migrations, and whether it is new enough for this version of the
//! program.

mod down;
mod grants;
mod objects;

use std::time::Duration;

use sqlx::{Connection, PgConnection, migrate::Migrator};
use tokio::time::timeout;

use super::{Postgres, StorageError, database_url::Source, migration_lock};
use crate::config::{ConfigError, Database};

pub(super) use down::hold_schema;
pub use down::{Revert, RevertError, migrate_down};
pub use grants::grants;
use objects::MIGRATIONS;
pub(super) use objects::names as object_names;

/// The embedded migrations of this version.
static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// How long Postgres may take to open a session.
const ANSWER: Duration = Duration::from_secs(10);

/// Why this version cannot use the schema of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaDefect {
    /// Migrations are missing.
    TooOld {
        /// The schema version of the database.
        found: i64,
        /// The lowest version that this program works with.
        required: i64,
    },
    /// The version is right, and tables or sequences are missing.
    Incomplete {
        /// Their names.
        missing: Vec<String>,
    },
}

impl std::fmt::Display for SchemaDefect {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooOld { .. } => formatter.write_str("too old; run `worker migrate`"),
            Self::Incomplete { missing } => {
                write!(
                    formatter,
                    "{} missing; run `worker migrate`",
                    missing.join(", ")
                )
            }
        }
    }
}

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

/// A failed migration.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database cannot be reached, or a migration fails.
    #[error("cannot migrate the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Every migration is applied, and something that they create is missing.
    #[error(
        "every migration is applied, but {missing} is missing, dropped by other means; restore a \
         backup, or drop the whole schema and migrate again"
    )]
    Incomplete {
        /// The missing tables and sequences.
        missing: String,
    },
}

/// Why there is no session that can migrate the database.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is malformed.
    #[error(transparent)]
    Url(#[from] ConfigError),
    /// Postgres does not answer, or rejects the session.
    #[error("DATABASE_URL: {0}")]
    Database(#[from] StorageError),
}

impl From<sqlx::Error> for ConnectError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Applies the missing migrations. Leaves a schema that is newer than this version unchanged.
///
/// # Errors
/// When the database cannot be reached, a migration fails, or a table is missing although its
/// migration is applied. Each migration runs in its own transaction, except those that build an
/// index without blocking writes.
pub async fn migrate(url: &str) -> Result<Migrated, MigrateError> {
    let mut connection = connect(url).await?;
    let from = version_on(&mut connection).await?;
    migration_lock::drop_unfinished_indexes(&mut connection).await?;
    migrator()
        .set_ignore_missing(true)
        .run(&mut connection)
        .await
        .map_err(sqlx::Error::from)?;
    let to = version_on(&mut connection).await?;
    let missing = missing_on(&mut connection).await?;
    connection.close().await?;
    match missing.is_empty() {
        true => Ok(Migrated { from, to }),
        false => Err(MigrateError::Incomplete {
            missing: missing.join(", "),
        }),
    }
}

/// The migrations, for a session that already holds the lock.
fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator.set_locking(false);
    migrator
}

/// Opens a session that alone migrates the database. It has no statement timeout, even if the
/// database or the role sets one.
async fn connect(url: &str) -> Result<PgConnection, ConnectError> {
    let source = Source::primary(url, &Database::default());
    let options = source.connect_options()?;
    source.warn_if_unprotected(&options);
    let mut connection = timeout(ANSWER, PgConnection::connect_with(&options))
        .await
        .map_err(|_| StorageError::Deadline(ANSWER))??;
    sqlx::query("SET statement_timeout = 0")
        .execute(&mut connection)
        .await?;
    migration_lock::take(&mut connection).await?;
    Ok(connection)
}

/// Returns the objects of this version that do not exist. A statement that names a missing table
/// would fail as a whole, and Postgres would log an error.
async fn missing_on(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT array(SELECT name FROM unnest($1::text[]) AS name \
         WHERE to_regclass(name) IS NULL)::text[]",
    )
    .bind(object_names())
    .fetch_one(connection)
    .await
}

async fn version_on(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // The table does not exist before the first migration.
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(MIGRATIONS)
        .fetch_one(&mut *connection)
        .await?;
    match exists {
        true => recorded_version(connection).await,
        false => Ok(0),
    }
}

async fn recorded_version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT coalesce(max(version), 0)::int8 FROM _sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await
}

async fn defect_on(connection: &mut PgConnection) -> Result<Option<SchemaDefect>, sqlx::Error> {
    let missing = missing_on(connection).await?;
    let found = match missing.iter().any(|name| name == MIGRATIONS) {
        true => 0,
        false => recorded_version(connection).await?,
    };
    let required = required_version();
    Ok(match (found < required, missing.is_empty()) {
        (true, _) => Some(SchemaDefect::TooOld { found, required }),
        (false, false) => Some(SchemaDefect::Incomplete { missing }),
        (false, true) => None,
    })
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

    /// Returns why this version cannot use the schema; none if it can.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn schema_defect(&self) -> Result<Option<SchemaDefect>, StorageError> {
        self.run("schema_version", defect_on).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn the_list_has_every_table_and_sequence() {
        let database = TestDatabase::migrated().await;
        let mut found: Vec<String> = database
            .value(
                "SELECT array_agg(relname::text) FROM pg_class \
                 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')",
            )
            .await;
        let mut listed = object_names();
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
