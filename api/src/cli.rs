//! Commands of the api.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use shared::runtime::process::{self, Process, Program};

use crate::{App, config::Config, http};

const PROGRAM: Program = Program {
    name: "api",
    version: env!("CARGO_PKG_VERSION"),
};

/// Maximum time for the whole shutdown, after which the watchdog ends the process.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(15);

/// Serves order lookups from a local cache, Redis and Postgres.
///
/// Environment variables configure everything else; docs/configuration.md lists them.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests (the default)
    Serve,
    /// Print the OpenAPI document and exit
    Openapi {
        /// Print YAML instead of JSON
        #[arg(long)]
        yaml: bool,
    },
    /// Check the readiness of a running api on its admin port; exit code 0 if it is ready
    Health {
        /// Check liveness instead of readiness
        #[arg(long)]
        live: bool,
    },
}

/// Runs the command given on the command line.
pub fn run() -> ExitCode {
    process::exit_code(match Cli::parse().command.unwrap_or(Command::Serve) {
        Command::Serve => serve(),
        Command::Openapi { yaml } => process::print(&http::openapi(yaml)),
        Command::Health { live } => process::print_health(live),
    })
}

fn serve() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    PROGRAM.serve(SHUTDOWN_LIMIT, |Process { registry, shutdown }| async {
        let app = App::build(config, registry).await?;
        tracing::info!(
            port = app.port(),
            admin_port = app.admin_port(),
            "listening"
        );
        app.run_until_stopped(shutdown).await;
        Ok(())
    })
}
