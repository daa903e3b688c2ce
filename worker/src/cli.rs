//! The command line and its commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shared::runtime::{
    command::{self, Completions},
    dumps,
    process::{self, Program},
};

use crate::{
    cache_admin,
    config::Config,
    dead_letters, grants, migrate, rewind, run,
    verify::{self, Verify},
};

const PROGRAM: Program = Program {
    name: "worker",
    version: env!("CARGO_PKG_VERSION"),
};

/// Stores orders from Kafka in Postgres and writes them through to Redis.
///
/// Environment variables configure the program. Docs: docs/configuration.md, docs/operations.md.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consume orders until SIGTERM (the default).
    Run,
    /// Migrate the database schema to the version that this worker needs.
    Migrate(migrate::Migrate),
    /// List, show, edit, replay or purge dead letters.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Set the group's offsets back in time, after Postgres was restored from a backup.
    ///
    /// Stop every worker first.
    Rewind(rewind::Rewind),
    /// Manage the orders that Redis caches.
    #[command(subcommand)]
    Cache(cache_admin::Command),
    /// Compare Postgres, Redis and the topic, and print what differs.
    ///
    /// The command changes nothing, and the system may run meanwhile: a difference counts only if
    /// it is still there 20 s later and no worker is repairing it.
    ///
    /// Exit codes: 0 no differences, 1 differences, 2 the command line is wrong, 3 the comparison
    /// could not be completed.
    Verify(Verify),
    /// Print the least rights of each role: SQL, lines of a Redis ACL file, Kafka ACLs.
    ///
    /// Connects to nothing. Names of topics and group come from `KAFKA_*`; several nodes in
    /// `REDIS_URL` add the commands of a cluster. Repeat the SQL after each migration.
    ///
    /// Example: `worker grants --only sql | psql -v ON_ERROR_STOP=1 "$DATABASE_URL"`
    Grants(grants::Grants),
    /// Check whether a running worker is ready; the exit code is 0 if it is.
    ///
    /// Requests `/readyz` from the admin port (`ADMIN_ADDR`) and prints the response.
    Health {
        /// Check whether it is alive instead (`/livez`).
        #[arg(long)]
        live: bool,
    },
    /// Print a script with which a shell completes the commands.
    ///
    /// Example for bash: `source <(worker completions bash)`
    Completions(Completions),
}

/// Runs the command given on the command line.
pub fn run() -> ExitCode {
    dumps::forbid();
    let cli: Cli = command::parse(&PROGRAM);
    process::exit_code(match cli.command.unwrap_or(Command::Run) {
        Command::Verify(verify) => return verify::run(&verify),
        Command::Run => consume(),
        Command::Migrate(migrate) => process::block_on(migrate::run(&migrate)),
        Command::DeadLetters(command) => process::block_on(dead_letters::run(command)),
        Command::Rewind(rewind) => rewind::run(&rewind),
        Command::Cache(command) => process::block_on(cache_admin::run(command)),
        Command::Grants(grants) => grants::run(&grants),
        Command::Health { live } => process::print_health(live),
        Command::Completions(completions) => completions.print::<Cli>(&PROGRAM),
    })
}

fn consume() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    let limit = config.worker.shutdown_timeout;
    PROGRAM.serve(limit, |process| run::run(config, process))
}
