//! Measures the programs against a bare `COPY` and a bare HTTP server, both sides in one run on one machine.
//!
//! | module | responsibility |
//! |---|---|
//! | `ingest`, `known`, `reads`, `latency`, `memory`, `start`, `cold`, `repair` | the parts of `make bench` |
//! | `growth`, `workers` | the parts of `make bench-large` |
//! | `copy_floor`, `http_floor` | the floors |
//! | `load`, `client`, `fill` | requests, and tables with many orders |
//! | `cpu`, `machine`, `summary` | what was used, on what, and what is made of it |
//! | `part`, `report`, `table`, `plot`, `page` | what a command gave; all of a run as text, JSON and a page |

mod client;
mod cold;
mod copy_floor;
mod cpu;
mod fill;
mod growth;
mod http_floor;
mod ingest;
mod known;
mod latency;
mod load;
mod machine;
mod memory;
mod page;
mod part;
mod plot;
mod reads;
mod repair;
mod report;
mod start;
mod summary;
mod table;
mod workers;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use e2e::Demand;

/// Measures order-service. The services come from the environment (`scripts/services env`), the programs from
/// `ORDER_SERVICE_BIN_DIR`.
#[derive(Debug, Parser)]
struct Cli {
    /// Where what was measured goes, as JSON.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A worker with a backlog of new orders, against `COPY` of the same rows by one connection.
    Ingest(ingest::Options),
    /// A worker with a backlog of orders that are stored already, read once more or replaced, against the same `COPY`.
    Known(known::Options),
    /// The api's answers from its local cache and from Redis, against a bare hyper server that gives the same ones.
    Reads(reads::Options),
    /// From handing an order to a producer until the api answers it.
    Latency(latency::Options),
    /// How much memory a worker takes that is far behind, and an api whose local cache is full.
    Memory(memory::Options),
    /// From the start of a process until it is ready.
    Start(start::Options),
    /// Reads past the caches, and what they cost as the tables grow.
    Cold(cold::Options),
    /// How long Redis holds older content, once it has come back with it.
    Repair(repair::Options),
    /// What an order costs when many are stored already.
    Growth(growth::Options),
    /// What an order costs with several workers.
    Workers(workers::Options),
    /// All parts of a run in one table, one file and one page.
    Report(report::Options),
    /// The floor of `reads`, which starts it by itself.
    #[command(hide = true)]
    ServeFloor(http_floor::Options),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let before = Demand::so_far();
    let mut part = match cli.command {
        Command::Ingest(options) => ingest::run(&options)?,
        Command::Known(options) => known::run(&options)?,
        Command::Reads(options) => reads::run(&options)?,
        Command::Latency(options) => latency::run(&options)?,
        Command::Memory(options) => memory::run(&options)?,
        Command::Start(options) => start::run(&options)?,
        Command::Cold(options) => cold::run(&options)?,
        Command::Repair(options) => repair::run(&options)?,
        Command::Growth(options) => growth::run(&options)?,
        Command::Workers(options) => workers::run(&options)?,
        Command::Report(options) => return report::run(&options),
        Command::ServeFloor(options) => return http_floor::serve(&options),
    };
    part.stolen = Some(Demand::so_far().stolen_since(before));
    table::print(&part.figures);
    part.steal().iter().for_each(|steal| println!("{steal}"));
    cli.out.map_or(Ok(()), |path| part.write(&path))
}
