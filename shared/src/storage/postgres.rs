//! The connection pool, and the one way in which every statement runs: a connection, a deadline, a
//! classified error.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use parking_lot::Mutex;
use scopeguard::{ScopeGuard, guard};
use sqlx::{
    PgConnection, PgPool, Postgres as Driver,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout_at;

use super::{
    Class, StorageError, database_url::Source, follow::Following, nodelay, schema::hold_schema,
    silence::Silence, writer_state::WriterState,
};
use crate::{
    config::{ConfigError, Database},
    telemetry::metrics::{LATENCY_SECONDS, meter},
};

/// How long a worker's statement waits for a lock, and how long its session may idle inside a
/// transaction. A frozen worker blocks other sessions no longer than this, except during a `COPY`
/// (see [`Postgres::end_frozen_sessions`]).
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Batches that a worker writes at once. The second batch hides the round trips and the commit of
/// the first. In measurements, a third batch cost CPU in Postgres and gained nothing.
pub const BATCHES_AT_ONCE: u32 = 2;

/// The role of a process, which decides the name and the settings of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Writes orders. Its sessions limit how long they wait for locks and hold them.
    Worker,
    /// Reads orders.
    Api,
}

impl Role {
    pub(super) fn application_name(self) -> &'static str {
        match self {
            Self::Worker => "order-worker",
            Self::Api => "order-api",
        }
    }

    fn default_timeout(self) -> Duration {
        match self {
            Self::Worker => Database::WORKER_TIMEOUT,
            Self::Api => Database::API_TIMEOUT,
        }
    }
}

/// Access to the orders in Postgres. Clones share its connections.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    /// The pool for batches. A pool opens one more connection while another one is still being
    /// returned, and uses all open connections in turn. Each connection is a Postgres process with
    /// its own caches. A backlog used five connections of a shared pool, and is faster over two
    /// (bench/results/HISTORY.md). It is the same pool as `pool` for an api, and for a worker with
    /// at most [`BATCHES_AT_ONCE`] connections.
    batches: PgPool,
    pub(super) role: Role,
    timeout: Duration,
    silence: Silence,
    pub(super) writer: Arc<WriterState>,
    metrics: Metrics,
    /// Ends the task that follows replaced files when the last clone is dropped.
    _following: Arc<Following>,
}

#[derive(Clone)]
struct Metrics {
    duration: Histogram<f64>,
    errors: Counter<u64>,
}

impl Metrics {
    fn new() -> Self {
        let errors = meter()
            .u64_counter("db_errors_total")
            .with_description("Failed calls to Postgres, by the reaction that they need")
            .build();
        for class in Class::ALL {
            errors.add(0, &[KeyValue::new("class", class.as_str())]);
        }
        let duration = meter()
            .f64_histogram("db_query_duration_seconds")
            .with_description("Duration of a call to Postgres, including the wait for a connection")
            .with_boundaries(LATENCY_SECONDS.to_vec())
            .build();
        Self { duration, errors }
    }
}

impl Postgres {
    /// Creates the pools for `url`, which is the primary, with the other settings of `config`. They
    /// connect at first use. If the URL comes from a file, new connections use the present content
    /// of the file.
    ///
    /// # Errors
    /// When the URL is not a Postgres URL, a certificate file cannot be used, or the deadline is
    /// zero.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(url: &str, config: &Database, role: Role) -> Result<Self, ConfigError> {
        Self::at(Source::primary(url, config), config, role)
    }

    /// Like [`Postgres::new`], for the read replica; none if there is no replica.
    ///
    /// # Errors
    /// As [`Postgres::new`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn replica(config: &Database, role: Role) -> Result<Option<Self>, ConfigError> {
        let source = Source::replica(config);
        source
            .map(|source| Self::at(source, config, role))
            .transpose()
    }

    fn at(source: Source, config: &Database, role: Role) -> Result<Self, ConfigError> {
        let timeout = config.timeout.unwrap_or(role.default_timeout());
        if timeout.is_zero() {
            return Err(ConfigError::malformed(
                "DATABASE_TIMEOUT",
                "must be longer than 0; write 5s",
            ));
        }
        let options = source.connect_options()?;
        source.warn_if_unprotected(&options);
        let options = for_session(options, role, timeout);
        let (for_batches, for_others) = match (role, config.max_connections) {
            (Role::Worker, all) if all > BATCHES_AT_ONCE => {
                (BATCHES_AT_ONCE, all - BATCHES_AT_ONCE)
            }
            (_, all) => (0, all),
        };
        let silence = Silence::new(timeout);
        let peer = Peer::of(&options);
        let pool = lazy_pool(&options, for_others, role, timeout, &silence, &peer);
        let batches = match for_batches {
            0 => pool.clone(),
            connections => lazy_pool(&options, connections, role, timeout, &silence, &peer),
        };
        let pools = [pool.clone(), batches.clone()];
        let following = Following::start(source, move |options| {
            let options = for_session(options, role, timeout);
            peer.set(&options);
            for pool in &pools {
                pool.set_connect_options(options.clone());
            }
        });
        Ok(Self {
            batches,
            pool,
            _following: Arc::new(following),
            role,
            timeout,
            silence,
            writer: Arc::default(),
            metrics: Metrics::new(),
        })
    }

    /// Returns host and port of the server.
    #[cfg(test)]
    pub(super) fn peer(&self) -> (String, u16) {
        let options = self.pool.connect_options();
        (options.get_host().to_owned(), options.get_port())
    }

    /// Returns the deadline of one call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns whether the sessions of this role limit how long they wait for locks and hold them,
    /// as a worker's sessions must. A pooler in between drops the settings that a session requests
    /// at its start.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn limits_locks(&self) -> Result<bool, StorageError> {
        let statement = sqlx::query_scalar(
            "SELECT current_setting('lock_timeout') <> '0' \
                AND current_setting('idle_in_transaction_session_timeout') <> '0'",
        );
        self.run("limits_locks", async |connection| {
            statement.fetch_one(connection).await
        })
        .await
    }

    /// Returns the maximum number of connections for calls other than batches.
    pub fn connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// Runs `call` on a connection. Its deadline begins now and includes the wait for the
    /// connection. `query` is its label in the metrics.
    pub(super) async fn run<T>(
        &self,
        query: &'static str,
        call: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StorageError> {
        let deadline = Deadline::after(self.timeout);
        let lease = self.lease(&self.pool, query, deadline).await?;
        lease.run(call).await
    }

    /// Runs `call` on a connection for batches, until `deadline`.
    pub(super) async fn run_batch<T>(
        &self,
        query: &'static str,
        deadline: Deadline,
        call: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StorageError> {
        let lease = self.lease(&self.batches, query, deadline).await?;
        lease.run(call).await
    }

    /// Returns the deadline for work that begins now and may wait for a lock. It includes the lock
    /// timeout, so that Postgres reports that timeout before the deadline passes.
    pub(super) fn deadline_to_lock(&self) -> Deadline {
        Deadline::after(self.timeout + LOCK_TIMEOUT)
    }

    async fn lease(
        &self,
        pool: &PgPool,
        query: &'static str,
        deadline: Deadline,
    ) -> Result<Lease<'_>, StorageError> {
        let call = Call {
            postgres: self,
            query,
            started: Instant::now(),
            limit: deadline.limit,
        };
        match timeout_at(deadline.at, pool.acquire()).await {
            Ok(Ok(connection)) => {
                let connection = guard(connection, close as fn(PoolConnection<Driver>));
                Ok(Lease {
                    call,
                    deadline: deadline.at,
                    connection,
                })
            }
            Ok(Err(error)) => call.finish(Err(error.into())),
            Err(_) => call.finish(Err(StorageError::Deadline(deadline.limit))),
        }
    }

    /// Closes all connections, and waits for calls in progress.
    pub async fn close(&self) {
        self.batches.close().await;
        self.pool.close().await;
    }
}

/// Returns the options of a session of this role.
fn for_session(options: PgConnectOptions, role: Role, timeout: Duration) -> PgConnectOptions {
    options
        .application_name(role.application_name())
        .options(settings(role, timeout))
}

/// Host and port of the server, which change if the URL is replaced. Clones share them.
#[derive(Clone)]
struct Peer(Arc<Mutex<(String, u16)>>);

impl Peer {
    fn of(options: &PgConnectOptions) -> Self {
        let peer = (options.get_host().to_owned(), options.get_port());
        Self(Arc::new(Mutex::new(peer)))
    }

    fn set(&self, options: &PgConnectOptions) {
        *self.0.lock() = (options.get_host().to_owned(), options.get_port());
    }

    fn get(&self) -> (String, u16) {
        self.0.lock().clone()
    }
}

/// The settings that a session requests at its start.
fn settings(role: Role, timeout: Duration) -> Vec<(&'static str, String)> {
    let milliseconds = |limit: Duration| {
        let limit = limit.as_millis().min(i32::MAX as u128);
        format!("{limit}ms")
    };
    // Without statistics of the tables, such as after they were filled or restored, Postgres
    // expects too many lines per order, and compiles the statement that reads 500 orders at each
    // call (bench/results/HISTORY.md).
    let jit = ("jit", "off".to_owned());
    // A caller that misses a deadline closes the connection. Without this limit, Postgres would
    // notice that only when it has an answer, while a new connection already replaces the old one.
    let statements = |limit| ("statement_timeout", milliseconds(limit));
    match role {
        // The api reads few rows, by an index. Without statistics, or for a frequent value,
        // Postgres may prefer to read a whole table, or all index entries before the first row.
        Role::Api => vec![
            jit,
            ("enable_seqscan", "off".to_owned()),
            ("enable_bitmapscan", "off".to_owned()),
            statements(timeout),
        ],
        Role::Worker => vec![
            jit,
            statements(timeout + LOCK_TIMEOUT),
            ("lock_timeout", milliseconds(LOCK_TIMEOUT)),
            (
                "idle_in_transaction_session_timeout",
                milliseconds(LOCK_TIMEOUT),
            ),
        ],
    }
}

/// Creates a pool that connects at first use.
fn lazy_pool(
    options: &PgConnectOptions,
    connections: u32,
    role: Role,
    timeout: Duration,
    silence: &Silence,
    peer: &Peer,
) -> PgPool {
    let (silence, peer) = (silence.clone(), peer.clone());
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(timeout)
        // A round trip before each call would cost too much. Only suspect connections are tested.
        .test_before_acquire(false)
        .before_acquire(move |connection, metadata| {
            let silence = silence.clone();
            Box::pin(async move { Ok(silence.is_fit(connection, metadata).await) })
        })
        .after_connect(move |connection, _| {
            let peer = peer.get();
            Box::pin(async move {
                if role == Role::Worker {
                    hold_schema(connection).await?;
                }
                // Resolving a name blocks.
                let set = tokio::task::spawn_blocking(move || nodelay::set(&peer.0, peer.1));
                // Only the end of the runtime cancels this task, and then no call needs the option.
                let _ = set.await;
                Ok(())
            })
        })
        .connect_lazy_with(options.clone())
}

/// The moment by which work must be done, and the time that it had from its start.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: tokio::time::Instant,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self {
            at: tokio::time::Instant::now() + limit,
            limit,
        }
    }
}

/// A connection for one call. It closes when it is dropped: after a missed deadline or a cancelled
/// call, a statement may still be running on it.
struct Lease<'p> {
    call: Call<'p>,
    deadline: tokio::time::Instant,
    connection: ScopeGuard<PoolConnection<Driver>, fn(PoolConnection<Driver>)>,
}

struct Call<'p> {
    postgres: &'p Postgres,
    query: &'static str,
    started: Instant,
    limit: Duration,
}

impl Lease<'_> {
    /// Runs the call until the deadline. Then returns the connection to the pool if it is fit to be
    /// used again.
    async fn run<T>(
        mut self,
        call: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StorageError> {
        let result = match timeout_at(self.deadline, call(&mut self.connection)).await {
            Ok(answer) => answer.map_err(StorageError::from),
            Err(_) => Err(StorageError::Deadline(self.call.limit)),
        };
        let silence = &self.call.postgres.silence;
        if !result.as_ref().is_err_and(StorageError::spoils_connection) {
            silence.release(ScopeGuard::into_inner(self.connection));
        } else if result.as_ref().is_err_and(StorageError::is_outage) {
            silence.record_failure();
        }
        self.call.finish(result)
    }
}

impl Call<'_> {
    fn finish<T>(self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        let metrics = &self.postgres.metrics;
        metrics.duration.record(
            self.started.elapsed().as_secs_f64(),
            &[KeyValue::new("query", self.query)],
        );
        if let Err(error) = &result {
            metrics
                .errors
                .add(1, &[KeyValue::new("class", error.class().as_str())]);
        }
        result
    }
}

fn close(connection: PoolConnection<Driver>) {
    drop(connection.detach());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{order::OrderUid, storage::ChangeSet, testing::TestDatabase};

    /// Checks that every call can run in a spawned task. Otherwise the compiler would report the
    /// mistake far from its cause.
    #[tokio::test]
    async fn calls_can_be_spawned() {
        fn spawnable<F: Future + Send>(_: F) {}
        let postgres = Postgres::new(
            "postgres://unused@localhost:1/none",
            &Database::default(),
            Role::Api,
        )
        .unwrap();
        let uid = OrderUid::parse("u").unwrap();
        spawnable(postgres.read(&uid));
        spawnable(postgres.apply(&ChangeSet::default()));
        spawnable(postgres.mark_for_repair(std::slice::from_ref(&uid)));
    }

    #[tokio::test]
    async fn no_session_compiles_statements() {
        let database = TestDatabase::empty().await;
        for role in [Role::Worker, Role::Api] {
            let postgres = database.connect(role);
            for pool in [&postgres.pool, &postgres.batches] {
                let setting: String = sqlx::query_scalar("SHOW jit")
                    .fetch_one(pool)
                    .await
                    .unwrap();
                assert_eq!(setting, "off", "{role:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_url_of_another_scheme_is_an_error_that_names_the_variable() {
        for url in ["mysql://root@localhost/orders", "localhost:5432", ""] {
            let error = Postgres::new(url, &Database::default(), Role::Api).err();
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            let expected = "DATABASE_URL: not a postgres:// URL; write postgres://USER:PASSWORD@";
            assert!(text.starts_with(expected), "{url}: {text}");
            let config = Database {
                read_url: Some(url.to_owned()),
                ..Database::default()
            };
            let error = Postgres::replica(&config, Role::Api).err();
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(
                text,
                format!("{expected}HOST:5432/NAME").replace("_URL", "_READ_URL")
            );
        }
    }
}
