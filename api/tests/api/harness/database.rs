//! A database of one test's own, on the server that `DATABASE_URL` names, and what the worker would do to it.

use std::{
    env, process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use shared::{
    config,
    order::{Order, Revision},
    storage::{Change, ChangeSet, Postgres, Role, schema},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::{document, uid, version};

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Database {
    server: String,
    name: String,
    writer: Postgres,
}

impl Database {
    /// A migrated database.
    pub(crate) async fn create() -> Self {
        let database = Self::create_empty().await;
        database.migrate().await;
        database
    }

    /// A database without any table.
    pub(crate) async fn create_empty() -> Self {
        let server = env::var("DATABASE_URL")
            .expect("DATABASE_URL is not set: run the tests by `make test`");
        let name = format!(
            "api_test_{}_{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        run(&server, &format!("CREATE DATABASE {name}")).await;
        let settings = config::Database {
            max_connections: 2,
            ..config::Database::default()
        };
        let writer = Postgres::new(&url(&server, &name), &settings, Role::Worker).unwrap();
        Self {
            server,
            name,
            writer,
        }
    }

    pub(crate) async fn migrate(&self) {
        schema::migrate(&self.url()).await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        url(&self.server, &self.name)
    }

    /// Stores `order` with the version of `offset`.
    pub(crate) async fn store(&self, order: &Order, offset: i64) -> Revision {
        self.apply(&order.order_uid, offset, Some(order)).await
    }

    /// Erases the order `name` with the version of `offset`.
    pub(crate) async fn erase(&self, name: &str, offset: i64) -> Revision {
        self.apply(name, offset, None).await
    }

    async fn apply(&self, name: &str, offset: i64, order: Option<&Order>) -> Revision {
        let change = Change {
            uid: uid(name),
            version: version(offset),
            order: order.cloned().map(Box::new),
        };
        let applied = self
            .writer
            .apply(&ChangeSet::new(vec![change]).0)
            .await
            .unwrap();
        assert_eq!(applied.won, [true]);
        Revision {
            uid: uid(name),
            version: version(offset),
            document: order.map(document),
        }
    }

    /// How many sessions of the api wait for a lock.
    pub(crate) async fn waiting_sessions(&self) -> i64 {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE datname = current_database() AND application_name = 'order-api' AND wait_event_type = 'Lock'";
        sqlx::query_scalar(waiting)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// Makes every read wait until the guard is dropped.
    pub(crate) async fn lock(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        connection.execute("BEGIN").await.unwrap();
        connection
            .execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            .await
            .unwrap();
        connection
    }

    /// Cuts every connection to the database and lets none in.
    pub(crate) async fn shut(&self) {
        run(
            &self.server,
            &format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", self.name),
        )
        .await;
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        );
        run(&self.server, &end).await;
    }

    /// Lets connections in again.
    pub(crate) async fn open(&self) {
        run(
            &self.server,
            &format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", self.name),
        )
        .await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A runtime of its own: this one cannot wait inside a drop.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(run(
                &server,
                &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            ));
        });
        // A test that failed already must not fail once more here, which would end the process.
        let _ = dropping.join();
    }
}

async fn run(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection
        .execute(AssertSqlSafe(statement.to_owned()))
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// `server` with another database.
fn url(server: &str, database: &str) -> String {
    let (front, _) = server
        .rsplit_once('/')
        .expect("DATABASE_URL ends with /DATABASE");
    format!("{front}/{database}")
}
