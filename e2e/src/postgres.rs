//! Postgres as seen through `psql`, and a Postgres that a test can stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;
use shared::order::Version;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::runtime::Runtime;

use crate::{
    block_on,
    environment::{Folder, required, script},
    port::Port,
    process::Signal,
    runtime,
    wait::until,
};

/// An order assembled from its four tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `orders.id`.
    pub id: i64,
    /// Version.
    pub version: Version,
    /// The order in the shape of its JSON, with the time in microseconds since 1970. `None` without
    /// rows in the other tables.
    pub document: Option<Value>,
    /// The columns of `orders` that hold content of an order, also if the order is erased.
    pub columns: Value,
    /// Number of rows in the other tables.
    pub children: i64,
    /// Whether `erased_at` is set.
    pub erased: bool,
    /// `created_at`, in microseconds since 1970.
    pub created_at: i64,
    /// `updated_at`, in microseconds since 1970.
    pub updated_at: i64,
}

/// The columns have the names of the JSON fields, except `shard_key`. A null column is an absent
/// field.
const ORDERS: &str = "\
    SELECT o.order_uid, o.id, o.source_timestamp_ms, o.source_offset, o.source_partition, \
           o.erased_at IS NOT NULL AS erased, \
           (extract(epoch FROM o.created_at) * 1000000)::bigint AS created_at, \
           (extract(epoch FROM o.updated_at) * 1000000)::bigint AS updated_at, \
           (SELECT count(*) FROM deliveries WHERE order_id = o.id) \
             + (SELECT count(*) FROM payments WHERE order_id = o.id) \
             + (SELECT count(*) FROM items WHERE order_id = o.id) AS children, \
           columns::text, \
           (columns || jsonb_build_object( \
               'order_uid', o.order_uid, \
               'delivery', (SELECT jsonb_strip_nulls(to_jsonb(d) - 'order_id') FROM deliveries d WHERE d.order_id = o.id), \
               'payment', (SELECT jsonb_strip_nulls(to_jsonb(p) - 'order_id') FROM payments p WHERE p.order_id = o.id), \
               'items', (SELECT jsonb_agg(jsonb_strip_nulls(to_jsonb(i) - 'order_id' - 'line_no') ORDER BY i.line_no) \
                         FROM items i WHERE i.order_id = o.id)))::text AS document \
    FROM orders o CROSS JOIN LATERAL jsonb_strip_nulls( \
        to_jsonb(o) - ARRAY['id', 'order_uid', 'shard_key', 'source_timestamp_ms', 'source_offset', \
                            'source_partition', 'representation', 'erased_at', 'created_at', 'updated_at'] \
        || jsonb_build_object('shardkey', o.shard_key, \
                              'date_created', (extract(epoch FROM o.date_created) * 1000000)::bigint)) AS columns";

/// Counts the orders, erased ones included.
pub(crate) const COUNT_ORDERS: &str = "SELECT count(*) FROM orders";

/// Logs each row of `orders` that a worker inserts, whether its version wins or not, in the
/// worker's transaction.
const COUNT_WRITES: &str = "\
    CREATE TABLE writes (partition int, record_offset bigint); \
    CREATE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        INSERT INTO writes VALUES (NEW.source_partition, NEW.source_offset); RETURN NEW; END $$; \
    CREATE TRIGGER count_write BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION count_write()";

/// Connection limit of a private Postgres: more than any test needs, and few enough for a test to
/// take them all.
const MAX_CONNECTIONS: &str = "max_connections=40";

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
        let statement = "SELECT order_uid, source_timestamp_ms, source_offset, source_partition FROM orders \
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
            "SELECT (SELECT count(*) FROM deliveries) + (SELECT count(*) FROM payments) + (SELECT count(*) FROM items)",
        )
    }
}

#[track_caller]
fn rows_of(answer: Result<Vec<PgRow>, sqlx::Error>) -> BTreeMap<String, Row> {
    answer
        .and_then(|rows| rows.iter().map(row_of).collect())
        .unwrap_or_else(|error| panic!("reading orders: {error}"))
}

fn row_of(row: &PgRow) -> Result<(String, Row), sqlx::Error> {
    let json = |column| -> Result<Value, sqlx::Error> {
        let text: &str = row.try_get(column)?;
        Ok(serde_json::from_str(text).expect("Postgres writes JSON"))
    };
    let children: i64 = row.try_get("children")?;
    let document = match children {
        0 => None,
        _ => Some(json("document")?),
    };
    let found = Row {
        id: row.try_get("id")?,
        version: Version {
            timestamp_ms: row.try_get("source_timestamp_ms")?,
            offset: row.try_get("source_offset")?,
            partition: row.try_get("source_partition")?,
        },
        document,
        columns: json("columns")?,
        children,
        erased: row.try_get("erased")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    };
    Ok((row.try_get("order_uid")?, found))
}

/// A connection that stays open, with its open transaction. Dropping it ends both.
pub struct Session {
    connection: PgConnection,
    runtime: Runtime,
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

    fn fetch(
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
        let sql = "SELECT order_uid, source_timestamp_ms, source_offset, source_partition FROM orders \
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

/// A private database on the shared server. Dropping this value drops the database.
pub(crate) struct OwnDatabase {
    name: String,
    server: Database,
    url: String,
}

impl OwnDatabase {
    pub(crate) fn create(name: &str) -> Self {
        let server = required("DATABASE_URL");
        let name = name.replace('-', "_");
        let own = Self {
            url: with_database(&server, &name),
            server: Database::new(&server),
            name,
        };
        own.server.execute(&format!("CREATE DATABASE {}", own.name));
        own
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = self.server.try_execute(&drop) {
            eprintln!("{drop}: {error}");
        }
    }
}

/// Returns `url` with another database name.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let server = address
        .rfind('/')
        .map_or(address, |slash| &address[..slash]);
    format!("{server}/{name}{parameters}")
}

/// A private Postgres that a test can stop, crash and freeze.
pub struct PrivatePostgres {
    folder: Folder,
    port: Port,
    settings: &'static [&'static str],
}

impl PrivatePostgres {
    pub(crate) fn start(name: &str, settings: &'static [&'static str]) -> Self {
        let server = Self {
            folder: Folder::create(&format!("{name}-postgres")),
            port: Port::reserve(),
            settings,
        };
        server.start_again();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://postgres:postgres@{}/orders",
            self.port.address()
        )
    }

    /// Starts Postgres after [`PrivatePostgres::crash`]. Returns when it is ready.
    #[track_caller]
    pub fn start_again(&self) {
        let port = self.port.number().to_string();
        let folder = self.folder.argument();
        let arguments = [&["start", &*folder, &port, MAX_CONNECTIONS], self.settings].concat();
        script("postgres", &arguments).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Kills Postgres.
    #[track_caller]
    pub fn crash(&self) {
        self.try_crash().unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_crash(&self) -> Result<(), String> {
        script("postgres", &["stop", &self.folder.argument(), "immediate"])
    }

    /// Freezes the server and all its sessions: connections stay open and get no answer.
    #[track_caller]
    pub fn freeze(&self) {
        // The postmaster stops first, so that it starts no new session in between.
        self.signal(Signal::Stop);
    }

    /// Ends [`PrivatePostgres::freeze`].
    #[track_caller]
    pub fn thaw(&self) {
        self.signal(Signal::Continue);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let sent = self
            .folder
            .pid()
            .is_some_and(|pid| send_to_all(pid, signal));
        assert!(sent, "Postgres does not run");
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if let Some(postmaster) = self.folder.pid() {
            // A frozen server cannot end.
            send_to_all(postmaster, Signal::Continue);
        }
        if let Err(error) = self.try_crash() {
            eprintln!("{error}");
        }
    }
}

/// Sends a signal to the postmaster and its children. Returns whether the postmaster exists. A
/// session that has already ended needs no signal.
fn send_to_all(postmaster: u32, signal: Signal) -> bool {
    let sent = signal.send(postmaster);
    let children = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    for session in children.split_whitespace().flat_map(str::parse) {
        signal.send(session);
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced_and_nothing_else() {
        for (url, expected) in [
            ("postgres://u:p@h:1/orders", "postgres://u:p@h:1/x"),
            (
                "postgres://u:p@h/orders?sslmode=require",
                "postgres://u:p@h/x?sslmode=require",
            ),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
