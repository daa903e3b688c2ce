//! Measures the programs against a bare `COPY` and a bare HTTP server, both sides in one run on one machine.

mod copy_floor;
mod cpu;
mod http_floor;
mod ingest;
mod load;
mod reads;
mod summary;

use clap::{Parser, Subcommand};

/// Measures order-service. The services come from the environment (`scripts/services env`), the programs from
/// `ORDER_SERVICE_BIN_DIR`.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A worker with a backlog of new orders, against `COPY` of the same rows by one connection.
    Ingest(ingest::Options),
    /// The api's answers from its local cache and from Redis, against a bare hyper server that gives the same ones.
    Reads(reads::Options),
    /// The floor of `reads`, which starts it by itself.
    #[command(hide = true)]
    ServeFloor(http_floor::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Ingest(options) => ingest::run(&options),
        Command::Reads(options) => reads::run(&options),
        Command::ServeFloor(options) => http_floor::serve(&options),
    }
}
