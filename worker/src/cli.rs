//! The command line and its commands.

use anyhow::Context;
use clap::{Parser, Subcommand};
use shared::{config, runtime::health, storage::schema};

use crate::{cache_admin, dead_letters, rewind, run};

/// Stores orders from Kafka in Postgres and writes them through to Redis.
///
/// Environment variables configure everything else; `.env.example` lists them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consume orders until SIGTERM (the default).
    Run,
    /// Migrate the database schema to the version that this worker needs.
    Migrate {
        /// Revert the newest N migrations instead.
        #[arg(long, value_name = "N")]
        down: Option<usize>,
    },
    /// List dead letters, or send them back to their source topics.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Set the group's offsets back in time, after Postgres was restored from a backup.
    ///
    /// Stop every worker first.
    Rewind(rewind::Rewind),
    /// Manage the orders that Redis caches.
    #[command(subcommand)]
    Cache(cache_admin::Command),
    /// Check whether a running worker is ready; the exit code is 0 if it is.
    Health {
        /// Check whether it is alive instead.
        #[arg(long)]
        live: bool,
    },
}

/// Runs the command that `cli` names.
///
/// # Errors
/// When the command fails. The error is written for the operator who ran it.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => runtime()?.block_on(run::run()),
        Command::Migrate { down } => runtime()?.block_on(migrate(down)),
        Command::DeadLetters(command) => runtime()?.block_on(dead_letters::run(command)),
        Command::Rewind(rewind) => rewind::run(&rewind),
        Command::Cache(command) => runtime()?.block_on(cache_admin::run(command)),
        Command::Health { live } => {
            let admin: config::Admin = config::load("ADMIN_")?;
            println!("{}", health::ask(&admin.addr, live)?);
            Ok(())
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

async fn migrate(down: Option<usize>) -> anyhow::Result<()> {
    let database: config::Database = config::load("DATABASE_")?;
    let migrated = match down {
        None => schema::migrate(&database.url).await,
        Some(steps) => schema::migrate_down(&database.url, steps).await,
    }
    .context("DATABASE_URL: migrating the database")?;
    match migrated.from == migrated.to {
        true => println!("schema version {}: nothing to do", migrated.to),
        false => println!("schema version {} -> {}", migrated.from, migrated.to),
    }
    Ok(())
}
