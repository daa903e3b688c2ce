//! Measures the programs against a bare `COPY` and a bare HTTP server. Both sides take turns in one
//! run on one machine.
//!
//! | module | responsibility |
//! |---|---|
//! | `ingest`, `known`, `reads`, `latency` | parts of `make bench` |
//! | `access`, `events`, `memory`, `start`, `cold`, `repair` | more parts of `make bench` |
//! | `growth`, `workers` | parts of `make bench-large` |
//! | `copy_floor`, `http_floor` | the floors |
//! | `load`, `client`, `fill` | requests, and tables with many orders |
//! | `cpu`, `machine`, `summary` | resource usage, the machine, medians |
//! | `part`, `results`, `report`, `table`, `page` | results as text, JSON and HTML |

mod access;
mod client;
mod cold;
mod copy_floor;
mod cpu;
mod events;
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
mod reads;
mod repair;
mod report;
mod results;
mod start;
mod summary;
mod table;
mod workers;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use e2e::Demand;

/// Measures order-service. Takes the services from the environment (`scripts/services env`) and the
/// programs from `ORDER_SERVICE_BIN_DIR`.
#[derive(Debug, Parser)]
struct Cli {
    /// File for the results, as JSON.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Rate at which a worker ingests a backlog of new orders, against `COPY` of the same rows by
    /// one connection.
    Ingest(ingest::Options),
    /// Rate at which a worker ingests redelivered and updated orders, against the same `COPY`.
    Known(known::Options),
    /// Rate at which the api serves orders from its local cache and from Redis, against a bare
    /// hyper server with the same responses.
    Reads(reads::Options),
    /// Rate at which the api serves orders from its local cache to callers with keys, against the
    /// api without keys.
    Access(access::Options),
    /// Latency from the call of a Kafka producer until the api returns the order.
    Latency(latency::Options),
    /// Latency from the commit of a change until its watchers receive the event, and memory of an
    /// api with many watchers.
    Events(events::Options),
    /// Peak memory of a worker with a large backlog, and of an api with a full local cache.
    Memory(memory::Options),
    /// Time from the start of a process until it is ready.
    Start(start::Options),
    /// Cost of cold reads, which bypass the caches, as the tables grow.
    Cold(cold::Options),
    /// Time until workers have repaired a Redis that returned with older content.
    Repair(repair::Options),
    /// Cost of an order when the tables hold many orders.
    Growth(growth::Options),
    /// Cost of an order with several workers.
    Workers(workers::Options),
    /// Combine all parts of a run into one table, one file and one page.
    Report(report::Options),
    /// The floor of `reads`, which starts it.
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
        Command::Access(options) => access::run(&options)?,
        Command::Latency(options) => latency::run(&options)?,
        Command::Events(options) => events::run(&options)?,
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
