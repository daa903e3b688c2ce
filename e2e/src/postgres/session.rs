//! A connection that stays open.

use std::collections::BTreeMap;

use shared::order::Version;
use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::runtime::Runtime;

/// A connection that stays open, with its open transaction. Dropping it ends both.
pub struct Session {
    pub(super) connection: PgConnection,
    pub(super) runtime: Runtime,
}

impl Session {
    /// Runs statements.
    ///
    /// # Errors
    /// The error of Postgres.
    pub fn try_execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let statements = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        self.runtime.block_on(statements).map(drop)
    }

    pub(super) fn fetch(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        self.runtime.block_on(query.fetch_all(&mut self.connection))
    }

    /// Runs a query that returns one number.
    #[track_caller]
    pub fn number(&mut self, sql: &str) -> i64 {
        self.fetch(sqlx::query(AssertSqlSafe(sql)))
            .and_then(|rows| rows[0].try_get(0))
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Returns the versions of those of these orders that exist.
    #[track_caller]
    pub fn versions(&mut self, uids: &[&str]) -> BTreeMap<String, Version> {
        let sql = "SELECT order_uid, source_timestamp_ms, source_offset, source_partition \
                   FROM orders \
                   WHERE order_uid = ANY($1)";
        let version = |row: &PgRow| -> Result<(String, Version), sqlx::Error> {
            let version = Version::new(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            Ok((row.try_get(0)?, version))
        };
        self.fetch(sqlx::query(sql).bind(uids))
            .and_then(|rows| rows.iter().map(version).collect())
            .unwrap_or_else(|error| panic!("reading versions: {error}"))
    }

    /// Runs statements.
    #[track_caller]
    pub fn execute(&mut self, sql: &str) {
        self.try_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}
