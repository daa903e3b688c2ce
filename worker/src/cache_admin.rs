//! `worker cache`: manages the orders that Redis caches.

use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use shared::{
    cache::Cache,
    config::{self, Redis},
    runtime::output,
};

/// Minimum timeout of a command. No request waits for it, and a first connection over TLS may take
/// long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do with the cached orders.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Delete all our keys from Redis, step by step, and make every api replica drop its local
    /// cache.
    ///
    /// Keys of other applications stay. Orders return to Redis as they are read or written; until
    /// then Postgres answers.
    Clear {
        /// Only print how many orders would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `command`.
///
/// # Errors
/// When Redis does not answer or rejects a command. It is safe to run the command again.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Clear { dry_run } = command;
    let mut redis: Redis = config::load("REDIS_")?;
    redis.timeout = redis.timeout.max(PATIENCE);
    let cache = Cache::pooled(&redis)?;
    let (counted, done) = match dry_run {
        true => (cache.count().await, "would be removed"),
        false => (cache.remove_all().await, "were removed"),
    };
    let count = counted.context("REDIS_URL: cannot clear the cache; repeat the command")?;
    output::unless_closed(output::line(format_args!(
        "{count} orders {done} from Redis"
    )))
}
