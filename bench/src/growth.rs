//! Measures the cost of an order when the tables hold many orders.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use e2e::Stack;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::{
    cold,
    copy_floor::{self, Chunk, ORDERS_PER_TRANSACTION, connect},
    cpu::cpu_time,
    fill::Fill,
    ingest::{self, Side, floor_side, micros_per_order, stored_bytes, worker_side},
    part::{Figure, Part},
};

/// Number of orders that are copied to fill the tables.
const ORIGINALS: usize = 10_000;

/// First id of the worker's orders: above those of the floor, below those that fill the tables.
const FIRST_ID_OF_WORKER: i64 = 500_000_000;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Numbers of stored orders, in ascending order, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
    rows: Vec<i64>,
    /// Rounds per size; floor, worker and reads take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// New orders per round, in thousands.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..))]
    thousands: u16,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    worker: Side,
    floor: Side,
    worker_cpu_us: f64,
    /// CPU time that an api replica needs for the announcement of one order, in µs. The replica
    /// receives no requests meanwhile.
    announced_cpu_us: f64,
    stored_bytes: f64,
    cold: cold::Round,
}

/// Runs the part.
///
/// # Errors
/// If a service does not respond, or the disk is full.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let runtime = Runtime::new()?;
    let chunks_a_round = usize::from(options.thousands);
    let rounds = options.rows.len() * usize::from(options.rounds);
    let chunks = chunks(
        &runtime,
        ORIGINALS + rounds * chunks_a_round * ORDERS_PER_TRANSACTION,
    )?;
    let (originals, chunks) = chunks.split_at(ORIGINALS / ORDERS_PER_TRANSACTION);
    let mut chunks = chunks.chunks_exact(chunks_a_round);

    let mut stack = ingest::stack("bench-growth");
    let url = stack.addresses().database_url.clone();
    let mut fill = runtime.block_on(async {
        copy_floor::copy(&url, originals).await?;
        connect(&url)
            .await?
            .execute("SELECT setval('orders_id_seq', $1)", &[&FIRST_ID_OF_WORKER])
            .await?;
        Fill::new(&url).await
    })?;
    stack.start_api();
    let mut sizes = Vec::new();
    for rows in &options.rows {
        runtime.block_on(fill.up_to(*rows))?;
        let mut rounds = Vec::new();
        for number in 1..=options.rounds {
            let chunks = chunks.next().context("too few chunks")?;
            let round = round(&runtime, &mut stack, chunks)?;
            eprintln!(
                "{rows} orders, round {number}: {}",
                serde_json::to_string(&round)?
            );
            rounds.push(round);
        }
        sizes.push((*rows, rounds));
    }
    let method = format!(
        "{} thousand new orders per round into tables that hold that many orders already, copied \
         under other uids; the floor's \
         COPY into the same tables, then the worker, then reads with ?nocache=1",
        options.thousands
    );
    Ok(Part::new("growth", &method, figures(&sizes)))
}

/// Returns the rows of `orders` orders that a worker stored in another database.
fn chunks(runtime: &Runtime, orders: usize) -> anyhow::Result<Vec<Chunk>> {
    let mut stack = ingest::stack("bench-growth-rows");
    ingest::send(&stack, orders)?;
    stack.start_worker();
    ingest::finish(&stack)?;
    stack.stop_workers();
    runtime.block_on(copy_floor::rows_of(&stack.addresses().database_url))
}

fn round(runtime: &Runtime, stack: &mut Stack, chunks: &[Chunk]) -> anyhow::Result<Round> {
    let orders = chunks.len() * ORDERS_PER_TRANSACTION;
    let url = stack.addresses().database_url.clone();
    let floor =
        runtime.block_on(async { floor_side(&url, now(&url).await?, chunks, orders).await })?;

    let api = stack.apis.first().context("the api runs")?;
    let (api_pid, api_url) = (api.process.id(), api.url());
    ingest::send(stack, orders)?;
    let since = runtime.block_on(now(&url))?;
    let api_cpu = cpu_time(api_pid)?;
    let pid = stack.start_worker().process.id();
    ingest::finish(stack)?;
    let worker = runtime.block_on(worker_side(&url, since, orders))?;
    let worker_cpu_us = micros_per_order(cpu_time(pid)?, orders);
    let announced_cpu_us = micros_per_order(cpu_time(api_pid)? - api_cpu, orders);
    stack.stop_workers();

    let (cold, stored) = runtime.block_on(async {
        let cold = cold::round(&url, &api_url, api_pid, Duration::from_secs(3)).await?;
        anyhow::Ok((cold, stored_bytes(&url).await?))
    })?;
    Ok(Round {
        worker,
        floor,
        worker_cpu_us,
        announced_cpu_us,
        stored_bytes: stored as f64,
        cold,
    })
}

/// Current time of the Postgres server.
async fn now(url: &str) -> anyhow::Result<SystemTime> {
    let row = connect(url).await?.query_one("SELECT now()", &[]).await?;
    Ok(row.get(0))
}

fn figures(sizes: &[(i64, Vec<Round>)]) -> Vec<Figure> {
    sizes.iter().flat_map(figures_of).collect()
}

fn figures_of((rows, rounds): &(i64, Vec<Round>)) -> [Figure; 7] {
    let of = |value: fn(&Round) -> f64| rounds.iter().map(value);
    let name = |what: &str| format!("{what}, {} M orders stored", *rows as f64 / 1e6);
    [
        Figure::new(
            &name("worker, backlog of new orders"),
            "orders/s",
            of(|r| r.worker.orders_per_second),
        )
        .floor(of(|r| r.floor.orders_per_second)),
        Figure::new(
            &name("Postgres CPU per order"),
            "µs",
            of(|r| r.worker.postgres_cpu_us),
        )
        .floor(of(|r| r.floor.postgres_cpu_us)),
        Figure::new(&name("worker CPU per order"), "µs", of(|r| r.worker_cpu_us)),
        Figure::new(
            &name("CPU of each api replica per announced order"),
            "µs",
            of(|r| r.announced_cpu_us),
        ),
        Figure::new(
            &name("Postgres CPU per cold read"),
            "µs",
            of(|r| r.cold.postgres_cpu_us),
        ),
        Figure::new(
            &name("api CPU per cold read"),
            "µs",
            of(|r| r.cold.api_cpu_us),
        ),
        Figure::new(
            &name("tables and indexes"),
            "MB",
            of(|r| r.stored_bytes / 1e6),
        ),
    ]
}
