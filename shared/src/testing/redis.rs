//! A Redis process for one test.

use std::{
    env,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{PATIENCE, TestCertificate, eventually, free_port};
use crate::config;

/// A Redis process for one test. Dropping the value ends the process.
pub struct TestRedis {
    pub(super) port: u16,
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

    pub(super) fn start_cluster_node(folder: &Path) -> Self {
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

    /// Starts Redis with a port for TLS, and returns that port. The other port stays without TLS.
    /// If `authority` is given, the server requires a client certificate of that authority.
    pub fn start_tls(certificate: &TestCertificate, authority: Option<&Path>) -> (Self, u16) {
        let authority = authority.map(|path| path.to_string_lossy().into_owned());
        (0..10)
            .find_map(|_| {
                let (port, tls_port) = (free_port(), free_port());
                let number = tls_port.to_string();
                let mut settings = vec!["--tls-port", &number];
                settings.extend(["--tls-cert-file", certificate.certificate_argument()]);
                settings.extend(["--tls-key-file", certificate.key_argument()]);
                match &authority {
                    Some(path) => settings.extend(["--tls-ca-cert-file", path]),
                    None => settings.extend(["--tls-auth-clients", "no"]),
                }
                Some((Self::start_with(port, &settings)?, tls_port))
            })
            .unwrap_or_else(|| panic!("redis-server does not start with TLS"))
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
