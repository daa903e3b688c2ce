//! A database for one test.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{eventually, required};
use crate::{
    config,
    grants::Names,
    storage::{Postgres, Role, schema},
};

/// Password of the roles of all tests.
const PASSWORD: &str = "least";

/// The roles that the tests connect as. They belong to the whole server.
fn names() -> Names {
    let name = |role: &str| format!("test_{role}");
    Names {
        migrate: name("migrate"),
        worker: name("worker"),
        api: name("api"),
        operator: name("worker"),
    }
}

/// A database for one test. Dropping the value drops the database in the background. When the
/// thread that dropped the value ends, the database is gone.
pub struct TestDatabase {
    /// URL of the database.
    pub url: String,
    server: String,
    name: String,
    has_roles: AtomicBool,
}

impl TestDatabase {
    /// Creates an empty database.
    pub async fn empty() -> Self {
        let server = required("DATABASE_URL");
        let name = format!("test_{}", Uuid::new_v4().simple());
        execute(&server, format!("CREATE DATABASE {name}")).await;
        let (base, _) = server
            .rsplit_once('/')
            .unwrap_or_else(|| panic!("DATABASE_URL names no database"));
        Self {
            url: format!("{base}/{name}"),
            server,
            name,
            has_roles: AtomicBool::new(false),
        }
    }

    /// Creates a database with the newest schema.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        database.migrate().await;
        database
    }

    /// Migrates the database to the newest schema, and gives the roles of the programs their
    /// rights.
    pub async fn migrate(&self) {
        schema::migrate(&self.url)
            .await
            .unwrap_or_else(|error| panic!("migrating: {error}"));
        self.grant().await;
    }

    async fn grant(&self) {
        let names = names();
        let mut sql = String::new();
        for name in [&names.migrate, &names.worker, &names.api] {
            // Another test may create it at this moment.
            sql += &format!(
                "DO $$ BEGIN CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'; \
                 EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$; "
            );
        }
        sql += &schema::grants(&names, "public");
        // Two tests that both make the first role a member of the other collide once.
        eventually("the roles of the programs", async || {
            let mut connection = connect(&self.url).await;
            let sql = sqlx::AssertSqlSafe(sql.clone());
            sqlx::raw_sql(sql).execute(&mut connection).await.ok()
        })
        .await;
        self.has_roles.store(true, Ordering::Relaxed);
    }

    /// Returns the URL with which a program of this role connects: with the rights that `worker
    /// grants` prints, unless the database is empty.
    pub fn url_of(&self, role: Role) -> String {
        let names = names();
        let name = match role {
            Role::Worker => &names.worker,
            Role::Api => &names.api,
        };
        match self.url.split_once('@') {
            Some((_, address)) if self.has_roles.load(Ordering::Relaxed) => {
                format!("postgres://{name}:{PASSWORD}@{address}")
            }
            _ => self.url.clone(),
        }
    }

    /// Connects to the database as a role of the programs, with a deadline that is long enough for
    /// a busy machine.
    pub fn connect(&self, role: Role) -> Postgres {
        let config = config::Database {
            timeout: Some(Duration::from_secs(10)),
            ..config::Database::default()
        };
        Postgres::new(&self.url_of(role), &config, role).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a statement in the database.
    pub async fn execute(&self, statement: &str) {
        execute(&self.url, statement.to_owned()).await;
    }

    /// Returns the single value that `query` selects.
    pub async fn value<T>(&self, query: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let mut connection = connect(&self.url).await;
        sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Locks `table` against reads and writes until the returned connection is dropped.
    pub async fn lock(&self, table: &str) -> PgConnection {
        let mut connection = connect(&self.url).await;
        run(&mut connection, "BEGIN".to_owned()).await;
        let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        run(&mut connection, lock).await;
        connection
    }

    /// Closes every connection to the database and rejects new ones.
    pub async fn shut(&self) {
        self.allow_connections(false).await;
        let cut = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        );
        execute(&self.server, cut).await;
    }

    /// Accepts new connections again.
    pub async fn open(&self) {
        self.allow_connections(true).await;
    }

    async fn allow_connections(&self, allowed: bool) {
        let statement = format!(
            "ALTER DATABASE {} WITH ALLOW_CONNECTIONS {allowed}",
            self.name
        );
        execute(&self.server, statement).await;
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, statement) = (
            self.server.clone(),
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
        // A runtime cannot be entered from within another one, so this needs a thread.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            if let Ok(runtime) = runtime {
                runtime.block_on(execute(&server, statement));
            }
        });
        // When the thread is ending, the list may be gone. Then the statement still runs, but the
        // thread does not wait for it.
        let _ = DROPPING.try_with(|list| list.0.borrow_mut().push(dropping));
    }
}

thread_local! {
    static DROPPING: Dropping = const { Dropping(RefCell::new(Vec::new())) };
}

/// Threads that drop databases. The test's thread joins them when it ends, after its runtime is
/// gone.
///
/// If the drop of [`TestDatabase`] joined the thread, it would block that runtime, and with it any
/// connection that is still logging in. `DROP DATABASE` waits for such a connection until
/// `authentication_timeout` (one minute), and so would every test on that server.
struct Dropping(RefCell<Vec<JoinHandle<()>>>);

impl Drop for Dropping {
    fn drop(&mut self) {
        for dropping in self.0.take() {
            // Ignore errors: the server may be gone already, and a panic while unwinding would hide
            // the first one.
            let _ = dropping.join();
        }
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url)
        .await
        .unwrap_or_else(|error| panic!("DATABASE_URL: {error}"))
}

async fn execute(url: &str, statement: String) {
    run(&mut connect(url).await, statement).await;
}

async fn run(connection: &mut PgConnection, statement: String) {
    sqlx::query(sqlx::AssertSqlSafe(statement.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}
