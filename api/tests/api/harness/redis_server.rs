//! A Redis of one test's own: keys and channel have fixed names, and a test may stop it.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use shared::config;

use super::eventually;

pub(crate) struct RedisServer {
    port: u16,
    process: Mutex<Option<Child>>,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        // The port is free now; should another process take it first, the server does not answer and the test says so.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self {
            port,
            process: Mutex::new(None),
        };
        server.run().await;
        server
    }

    /// Starts the process, empty.
    pub(crate) async fn run(&self) {
        let process = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--daemonize",
                "no",
            ])
            .args(["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is not installed: run the tests by `make test`");
        *self.process.lock().unwrap() = Some(process);
        eventually("Redis answers", || async {
            let Ok(mut connection) = self.connection().await else {
                return false;
            };
            redis::cmd("PING")
                .query_async::<String>(&mut connection)
                .await
                .is_ok()
        })
        .await;
    }

    /// Ends the process.
    pub(crate) fn stop(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn config(&self) -> config::Redis {
        config::Redis {
            url: self.url(),
            ..config::Redis::default()
        }
    }

    /// What a worker writes with.
    pub(crate) fn cache(&self) -> shared::cache::Cache {
        shared::cache::Cache::shared(&self.config()).unwrap()
    }

    pub(crate) async fn connection(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(self.url())?
            .get_multiplexed_async_connection()
            .await
    }

    /// Runs one command.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query_async(&mut connection).await.unwrap()
    }

    /// The version that it holds of the order `uid`.
    pub(crate) async fn version_of(&self, uid: &str) -> Option<String> {
        self.command(&["HGET", &format!("order:{uid}"), "version"])
            .await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}
