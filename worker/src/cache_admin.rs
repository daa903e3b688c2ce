//! `worker cache`: manages the orders that Redis caches.

use std::time::Duration;

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
    output::line(match dry_run {
        true => format!(
            "{} orders would be removed from Redis",
            cache.count().await?
        ),
        false => format!(
            "{} orders were removed from Redis",
            cache.remove_all().await?
        ),
    })
}
