//! `worker cache`: what an operator does to Redis.

use std::time::Duration;

use clap::Subcommand;
use shared::{
    cache::Cache,
    config::{self, Redis},
};

/// Nothing waits for a command, so that it may take its time, as for the first connection over TLS.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do with Redis.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Remove every key of ours, step by step, and make api replicas drop what they hold themselves. Keys of others stay.
    /// Orders come back into Redis as they are read or written; until then Postgres answers.
    Clear {
        /// Only say how much there is.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Does what the command line says.
///
/// # Errors
/// When Redis does not answer or refuses; once more is harmless.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Clear { dry_run } = command;
    let mut redis: Redis = config::load("REDIS_")?;
    redis.timeout = redis.timeout.max(PATIENCE);
    let cache = Cache::pooled(&redis)?;
    if dry_run {
        println!(
            "{} orders would be removed from Redis",
            cache.count().await?
        );
    } else {
        println!(
            "{} orders were removed from Redis",
            cache.remove_all().await?
        );
    }
    Ok(())
}
