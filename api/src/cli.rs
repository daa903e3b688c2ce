//! Commands of the api.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use shared::runtime::{
    command::{self, Completions},
    dumps, output,
    process::{self, Process, Program},
};

use crate::{App, config::Config, http};

const PROGRAM: Program = Program {
    name: "api",
    version: env!("CARGO_PKG_VERSION"),
};

/// Maximum time for the whole shutdown, after which the watchdog ends the process.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(15);

/// Serves order lookups from a local cache, Redis and Postgres.
///
/// Environment variables configure the program. Docs: docs/configuration.md, docs/http-api.md.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests until SIGTERM (the default).
    ///
    /// Example: `DATABASE_URL=postgres://db/orders REDIS_URL=redis://cache:6379 api`
    Serve,
    /// Print the OpenAPI document.
    ///
    /// Starts nothing and needs no service. Example: `api openapi >openapi.json`
    Openapi {
        /// Print YAML instead of JSON.
        #[arg(long)]
        yaml: bool,
    },
    /// Check whether a running api is ready; the exit code is 0 if it is.
    ///
    /// Requests `/readyz` from the admin port (`ADMIN_ADDR`) and prints the response.
    Health {
        /// Check whether it is alive instead (`/livez`).
        #[arg(long)]
        live: bool,
    },
    /// Print a script with which a shell completes the commands.
    ///
    /// Example for bash: `source <(api completions bash)`
    Completions(Completions),
}

/// Runs the command given on the command line.
pub fn run() -> ExitCode {
    dumps::forbid();
    let cli: Cli = command::parse(&PROGRAM);
    process::exit_code(match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(),
        Command::Openapi { yaml } => output::print(&http::openapi(yaml)),
        Command::Health { live } => process::print_health(live),
        Command::Completions(completions) => completions.print::<Cli>(&PROGRAM),
    })
}

fn serve() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    PROGRAM.serve(SHUTDOWN_LIMIT, |process| async {
        let Process {
            registry,
            shutdown,
            hangup,
        } = process;
        let app = App::build(config, registry).await?.reread_on(hangup);
        tracing::info!(
            port = app.port(),
            admin_port = app.admin_port(),
            "listening"
        );
        app.run_until_stopped(shutdown).await;
        Ok(())
    })
}
