//! Commands of the api.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use shared::{
    config::{self, Admin},
    runtime::{health, shutdown},
    telemetry,
};

use crate::{App, config::Config, http};

/// Maximum time for the whole shutdown, after which the watchdog ends the process.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(15);

/// Serves order lookups from a local cache, Redis and Postgres. Configured by environment
/// variables.
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
    let done = match Cli::parse().command.unwrap_or(Command::Serve) {
        Command::Serve => serve(),
        Command::Openapi { yaml } => print(&http::openapi(yaml)),
        Command::Health { live } => ask(live),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to stdout. Unlike `println!`, it returns an error and does not panic, and it ignores a
/// closed pipe (`api openapi | head`).
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn ask(live: bool) -> anyhow::Result<()> {
    let admin: Admin = config::load("ADMIN_")?;
    print(&format!("{}\n", health::ask(&admin.addr, live)?))
}

fn serve() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let telemetry = telemetry::init("api", env!("CARGO_PKG_VERSION"))?;
            let stop = shutdown::on_signal(SHUTDOWN_LIMIT)?;
            let app = App::build(Config::from_env()?, telemetry.registry()).await?;
            tracing::info!(
                port = app.port(),
                admin_port = app.admin_port(),
                "the api is listening"
            );
            let result = app.run_until_stopped(stop).await;
            telemetry.flush();
            result
        })
}
