//! Commands.

use anyhow::Context;
use clap::{Parser, Subcommand};
use shared::{config, runtime::health, storage::schema};

use crate::{cache_admin, dead_letters, rewind, run};

/// Consumes orders from Kafka, persists them to Postgres and writes them through to Redis.
///
/// Everything else is configured by environment variables; `.env.example` lists them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join the group and work until SIGTERM (the default).
    Run,
    /// Bring the database schema to the version that this worker needs.
    Migrate {
        /// Undo the newest N migrations instead.
        #[arg(long, value_name = "N")]
        down: Option<usize>,
    },
    /// Look at the dead letter topic, or send its records back.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Set the group back in time, after Postgres was restored from a backup. Every worker must be stopped.
    Rewind(rewind::Rewind),
    /// Look after what is in Redis.
    #[command(subcommand)]
    Cache(cache_admin::Command),
    /// Ask a running worker whether it is ready; exit code 0 if it is.
    Health {
        /// Ask whether it is alive instead.
        #[arg(long)]
        live: bool,
    },
}

/// Does what the command line says.
///
/// # Errors
/// What stops the command, in words for whoever called it.
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
