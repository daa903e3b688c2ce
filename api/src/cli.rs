//! The commands of the api.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use shared::{
    config::{self, Admin},
    runtime::{health, shutdown},
    telemetry,
};

use crate::{App, config::Config, http};

/// How long the whole shutdown may take before the process is ended.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(15);

/// Answers order look-ups from a local cache, Redis and Postgres. Configured by environment variables.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer requests (the default)
    Serve,
    /// Print the OpenAPI document, without starting anything
    Openapi {
        /// As YAML
        #[arg(long)]
        yaml: bool,
    },
    /// Ask the admin port of a running api whether it is ready; exit code 0 if so
    Health {
        /// Whether it is alive
        #[arg(long)]
        live: bool,
    },
}

/// Runs the command that the command line names.
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

/// Unlike `println!`, an error and not a panic when nobody reads (`api openapi | head`).
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
