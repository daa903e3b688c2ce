//! Real services for tests: a new database on the Postgres of `DATABASE_URL`, and a new Redis
//! process.
//!
//! Each test needs its own Redis because the names of keys and channels are fixed. If a service is
//! missing, everything here panics: a test that cannot reach its services must fail.

use std::{
    cell::RefCell,
    env,
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::{
    cache::{Cache, CacheError, WriteOutcome},
    config,
    order::Revision,
    storage::{Postgres, Role, schema},
};

/// Maximum time that a test waits for a condition.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the value of an environment variable that `make test` sets.
///
/// # Panics
/// If the variable is not set.
pub fn required(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run the tests with `make test`, or `eval \"$(scripts/services env)\"` first"))
}

/// Returns the variables that `.env.example` sets, without those that are commented out.
pub fn example_variables() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../.env.example");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A database for one test. Dropping the value drops the database in the background. When the
/// thread that dropped the value ends, the database is gone.
pub struct TestDatabase {
    /// URL of the database.
    pub url: String,
    server: String,
    name: String,
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
        }
    }

    /// Creates a database with the newest schema.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        database.migrate().await;
        database
    }

    /// Migrates the database to the newest schema.
    pub async fn migrate(&self) {
        schema::migrate(&self.url)
            .await
            .unwrap_or_else(|error| panic!("migrating: {error}"));
    }

    /// Connects to the database, with a deadline that is long enough for a busy machine.
    pub fn connect(&self, role: Role) -> Postgres {
        let config = config::Database {
            timeout: Some(Duration::from_secs(10)),
            ..config::Database::default()
        };
        Postgres::new(&self.url, &config, role).unwrap_or_else(|error| panic!("{error}"))
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

/// A Redis process for one test. Dropping the value ends the process.
pub struct TestRedis {
    port: u16,
    process: Child,
}

impl TestRedis {
    /// Starts an empty Redis without persistence.
    pub fn start() -> Self {
        // Another process may take the port between `free_port` and the start of Redis.
        (0..10)
            .find_map(|_| Self::start_on(free_port()))
            .unwrap_or_else(|| panic!("redis-server does not start"))
    }

    /// Starts Redis on `port`. Returns `None` if the port is taken.
    fn start_on(port: u16) -> Option<Self> {
        Self::start_with(port, &[])
    }

    fn start_cluster_node(folder: &std::path::Path) -> Self {
        (0..10)
            .find_map(|_| {
                let (port, bus) = (free_port(), free_port().to_string());
                let state = folder.join(format!("{port}.conf"));
                let state = state.to_string_lossy();
                let settings = [
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                    "--cluster-config-file",
                    &state,
                ];
                Self::start_with(port, &settings)
            })
            .unwrap_or_else(|| panic!("redis-server does not start as a node of a cluster"))
    }

    fn start_with(port: u16, settings: &[&str]) -> Option<Self> {
        let program =
            env::var("ORDER_SERVICE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let process = Command::new(&program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args([
                "--maxmemory-policy",
                "allkeys-lru",
                "--enable-debug-command",
                "yes",
            ])
            // Without these, a replica would write a file into the folder of the tests.
            .args(["--repl-diskless-sync", "yes"])
            .args(["--repl-diskless-sync-delay", "0"])
            .args(["--repl-diskless-load", "swapdb"])
            .args(settings)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut redis = Self { port, process };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if matches!(redis.process.try_wait(), Ok(Some(_))) {
                return None;
            }
            if redis.process_id() == Some(redis.process.id()) {
                return Some(redis);
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("{program} does not answer on port {port}");
    }

    /// Returns the id of the process that answers on the port.
    fn process_id(&self) -> Option<u32> {
        let mut connection = redis::Client::open(self.url())
            .ok()?
            .get_connection()
            .ok()?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query(&mut connection)
            .ok()?;
        info.lines()
            .find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok())
    }

    /// Makes this server a replica of `master`, or a master again if `master` is `None`. Waits
    /// until a replica has the content of its master.
    pub async fn replicate(&self, master: Option<&TestRedis>) {
        let mut connection = self.connect().await;
        let mut command = redis::cmd("REPLICAOF");
        match master {
            Some(master) => command.arg("127.0.0.1").arg(master.port),
            None => command.arg("NO").arg("ONE"),
        };
        let done: Result<(), _> = command.query_async(&mut connection).await;
        done.unwrap_or_else(|error| panic!("REPLICAOF: {error}"));
        eventually("a replica that is up to date", async || {
            let info = redis::cmd("INFO")
                .arg("replication")
                .query_async::<String>(&mut connection)
                .await
                .ok()?;
            (info.contains("role:master") || info.contains("master_link_status:up")).then_some(())
        })
        .await;
    }

    /// URL of the server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Configuration for a client of this server.
    pub fn config(&self) -> config::Redis {
        config::Redis {
            url: self.url(),
            timeout: Duration::from_secs(2),
            ..config::Redis::default()
        }
    }

    /// Opens a new connection.
    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap_or_else(|error| panic!("{error}"));
        client
            .get_multiplexed_async_connection()
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Kills the process, like `kill -9`.
    pub fn kill(&mut self) {
        // An error means that the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts an empty Redis at the same address and kills the old process if it still runs. Blocks
    /// the thread until Redis answers.
    pub fn restart(&mut self) {
        self.kill();
        *self = Self::start_on(self.port).unwrap_or_else(|| panic!("port {} was taken", self.port));
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

impl TestRedis {
    /// Creates the user `name` with the password `secret` and the ACL rules `rules`, separated by
    /// spaces. Returns a configuration that uses it.
    pub async fn user(&self, name: &str, rules: &str) -> config::Redis {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(name).arg("on").arg(">secret");
        command.arg(rules.split(' ').collect::<Vec<_>>());
        let created: Result<(), _> = command.query_async(&mut self.connect().await).await;
        created.unwrap_or_else(|error| panic!("ACL SETUSER {name} {rules}: {error}"));
        config::Redis {
            url: format!("redis://{name}:secret@127.0.0.1:{}", self.port),
            ..self.config()
        }
    }
}

/// An address that a test can move from one Redis to another. Open connections stay with the old
/// server.
pub struct MovingRedis {
    port: u16,
    target: Arc<AtomicU16>,
}

impl MovingRedis {
    /// Creates an address that leads to `redis`.
    pub fn to(redis: &TestRedis) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .unwrap_or_else(|error| panic!("no free port: {error}"));
        let target = Arc::new(AtomicU16::new(redis.port));
        let port = listener.local_addr().map_or(0, |address| address.port());
        let to = Arc::clone(&target);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // If the server is down, the client's connection closes.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", to.load(Ordering::SeqCst))) {
                    forward(&client, &server);
                    forward(&server, &client);
                }
            }
        });
        Self { port, target }
    }

    /// Routes new connections to `redis`.
    pub fn move_to(&self, redis: &TestRedis) {
        self.target.store(redis.port, Ordering::SeqCst);
    }

    /// Returns `config` with this address.
    pub fn config(&self, config: config::Redis) -> config::Redis {
        let (before, _) = config.url.rsplit_once(':').unwrap_or_default();
        config::Redis {
            url: format!("{before}:{}", self.port),
            ..config
        }
    }
}

/// Copies bytes from `from` to `to` on a new thread until either side closes.
fn forward(from: &TcpStream, to: &TcpStream) {
    // If a socket cannot be cloned, the connection hangs, and the test fails.
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Returns a port on which no process listens at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .unwrap_or_else(|error| panic!("no free port: {error}"))
}

/// Calls `state` until it returns a value.
///
/// # Panics
/// After [`PATIENCE`], with `what` in the message, even if `state` hangs.
pub async fn eventually<T>(what: &str, mut state: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(value) = state().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Writes `revisions` until Redis has accepted every one.
///
/// The nodes of a new cluster discover each other one by one. A write is too late if connecting
/// takes longer than a row stays fresh.
pub async fn write_until_taken(cache: &Cache, revisions: &[Revision]) {
    eventually("a Redis that takes writes", async || {
        let results = cache.write_batch(revisions, Instant::now()).await;
        let taken = |result: &Result<WriteOutcome, CacheError>| {
            matches!(result, Ok(WriteOutcome::Written | WriteOutcome::Unchanged))
        };
        results.iter().all(taken).then_some(())
    })
    .await;
}

/// A Redis Cluster of three masters for one test. Dropping the value ends it.
pub struct TestCluster {
    nodes: Vec<TestRedis>,
    folder: std::path::PathBuf,
}

impl TestCluster {
    /// Starts three empty servers and creates a cluster of them.
    pub fn start() -> Self {
        let folder = env::temp_dir().join(format!("order-service-cluster-{}", Uuid::new_v4()));
        std::fs::create_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let nodes: Vec<TestRedis> = (0..3)
            .map(|_| TestRedis::start_cluster_node(&folder))
            .collect();
        let create = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)))
            .arg("--cluster-yes")
            .output()
            .unwrap_or_else(|error| panic!("redis-cli: {error}"));
        assert!(
            create.status.success(),
            "{}",
            String::from_utf8_lossy(&create.stdout)
        );
        Self { nodes, folder }
    }

    /// Configuration for a client of the cluster.
    pub fn config(&self) -> config::Redis {
        let urls: Vec<String> = self.nodes.iter().map(TestRedis::url).collect();
        config::Redis {
            url: urls.join(","),
            ..self.nodes[0].config()
        }
    }

    /// The servers of the cluster.
    pub fn nodes(&self) -> &[TestRedis] {
        &self.nodes
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.nodes.clear();
        // A leftover folder in the temporary directory does no harm.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
