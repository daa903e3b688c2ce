//! Real services for tests: a new database on the Postgres of `DATABASE_URL`, and a new Redis
//! process.
//!
//! Each test needs its own Redis because the names of keys and channels are fixed. If a service is
//! missing, everything here panics: a test that cannot reach its services must fail.

mod authority;
mod cluster;
mod database;
mod moving_redis;
mod postgres;
mod redis;

use std::{env, fs::DirEntry, net::TcpListener, path::Path, time::Duration};

pub use authority::{TestAuthority, TestCertificate};
pub use cluster::{TestCluster, write_until_taken};
pub use database::TestDatabase;
pub use moving_redis::MovingRedis;
pub use postgres::TestPostgres;
pub use redis::TestRedis;

/// Maximum time that a test waits for a condition.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the value of an environment variable that `make test` sets.
///
/// # Panics
/// If the variable is not set.
pub fn required(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run the tests with `make \
        test`, or `eval \"$(scripts/services env)\"` first"
        )
    })
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

/// Returns the inputs in `fuzz/corpus/` for a fuzz target.
///
/// # Panics
/// If there is none.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let read = |file: std::io::Result<DirEntry>| std::fs::read(file?.path());
    let inputs: std::io::Result<Vec<_>> =
        std::fs::read_dir(&folder).and_then(|files| files.map(read).collect());
    match inputs {
        Ok(inputs) if !inputs.is_empty() => inputs,
        other => panic!("no input in {}: {other:?}", folder.display()),
    }
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
    let polling = async {
        loop {
            if let Some(value) = state().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polling)
        .await
        .unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}
