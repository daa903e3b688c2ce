//! A database, with a new connection for each call.

use std::collections::{BTreeMap, BTreeSet};

use shared::order::Version;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{
    rows::{ORDERS, Row, rows_of},
    session::Session,
};
use crate::{block_on, runtime, wait::until};

/// Counts the orders, erased ones included.
pub(crate) const COUNT_ORDERS: &str = "SELECT count(*) FROM orders";

/// Logs each row of `orders` that a worker inserts, whether its version wins or not, in the
/// worker's transaction. The worker has no right on the log itself.
const COUNT_WRITES: &str = "\
    CREATE TABLE writes (partition int, record_offset bigint); \
    CREATE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
        INSERT INTO writes VALUES (NEW.source_partition, NEW.source_offset); RETURN NEW; END $$; \
    CREATE TRIGGER count_write BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION count_write()";

/// A database. Each call opens a new connection, so that no connection outlives a restart of the
/// server.
#[derive(Clone, Debug)]
pub struct Database {
    url: String,
}

impl Database {
    /// The database at `url`.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
        }
    }

    /// Runs statements.
    ///
    /// # Errors
    /// The error of Postgres.
    pub fn try_execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        block_on(async {
            let mut connection = PgConnection::connect(&self.url).await?;
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut connection)
                .await?;
            connection.close().await
        })
    }

    /// Runs statements.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.try_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn query(&self, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
        self.fetch(sqlx::query(AssertSqlSafe(sql)))
    }

    fn fetch(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.try_session()?.fetch(query)
    }

    /// Runs a query that returns one number.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        self.session().number(sql)
    }

    /// Opens a connection that stays open. Retries, because a Postgres that was just away may have
    /// no free connection.
    #[track_caller]
    pub fn session(&self) -> Session {
        until("a connection to Postgres", || self.try_session())
    }

    /// Like [`Database::session`], without retries.
    ///
    /// # Errors
    /// Postgres accepts no more connections.
    pub fn try_session(&self) -> Result<Session, sqlx::Error> {
        let runtime = runtime();
        let connection = runtime.block_on(PgConnection::connect(&self.url))?;
        Ok(Session {
            connection,
            runtime,
        })
    }

    /// Returns the first column of each row as text.
    #[track_caller]
    pub(crate) fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.query(sql).and_then(|rows| {
            let texts = rows.iter().map(|row| row.try_get(0));
            texts.collect()
        });
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Returns the number of orders, erased ones included.
    #[track_caller]
    pub fn count(&self) -> usize {
        self.number(COUNT_ORDERS) as usize
    }

    /// Returns the versions of those of these orders that exist.
    ///
    /// # Errors
    /// The error of Postgres, or no answer.
    pub fn try_versions(&self, uids: &[String]) -> Result<BTreeMap<String, Version>, sqlx::Error> {
        let statement = "SELECT order_uid, source_timestamp_ms, source_offset, source_partition \
                         FROM orders \
                         WHERE order_uid = ANY($1)";
        let rows = self.fetch(sqlx::query(statement).bind(uids))?;
        rows.iter()
            .map(|row| {
                let version = Version::new(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
                Ok((row.try_get(0)?, version))
            })
            .collect()
    }

    /// Returns the number of repair marks and unfinished writes: updates that Redis still lacks.
    #[track_caller]
    pub fn repair_marks(&self) -> i64 {
        self.number(
            "SELECT (SELECT count(*) FROM cache_repairs) + (SELECT count(*) FROM cache_writes)",
        )
    }

    /// Returns how many of these orders have a repair mark.
    #[track_caller]
    pub fn repair_marks_of(&self, uids: &BTreeSet<String>) -> usize {
        let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
        self.fetch(sqlx::query("SELECT FROM cache_repairs WHERE order_uid = ANY($1)").bind(uids))
            .unwrap_or_else(|error| panic!("reading marks: {error}"))
            .len()
    }

    /// Returns every order by its uid.
    #[track_caller]
    pub fn orders(&self) -> BTreeMap<String, Row> {
        rows_of(self.query(ORDERS))
    }

    /// Returns those of these orders that exist.
    #[track_caller]
    pub fn orders_of(&self, uids: &BTreeSet<String>) -> BTreeMap<String, Row> {
        let sql = format!("{ORDERS} WHERE o.order_uid = ANY($1)");
        let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
        rows_of(self.fetch(sqlx::query(AssertSqlSafe(sql)).bind(uids)))
    }

    /// Returns one order.
    ///
    /// # Panics
    /// The order does not exist.
    #[track_caller]
    pub fn order(&self, uid: &str) -> Row {
        self.orders_of(&BTreeSet::from([uid.to_owned()]))
            .remove(uid)
            .unwrap_or_else(|| panic!("Postgres has no order {uid}"))
    }

    /// Starts to count how often each record is written.
    #[track_caller]
    pub fn count_writes(&self) {
        self.execute(COUNT_WRITES);
    }

    /// Returns the number of repeated writes of a record since [`Database::count_writes`].
    #[track_caller]
    pub fn written_again(&self) -> usize {
        self.number("SELECT count(*) - count(DISTINCT (partition, record_offset)) FROM writes")
            as usize
    }

    /// Returns the number of rows in the three other tables. Foreign keys ensure that each row
    /// belongs to an order.
    #[track_caller]
    pub fn children(&self) -> i64 {
        self.number(
            "SELECT (SELECT count(*) FROM deliveries) + (SELECT count(*) FROM payments) \
             + (SELECT count(*) FROM items)",
        )
    }
}
