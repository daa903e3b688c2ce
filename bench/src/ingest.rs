//! A worker with a backlog of new orders.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use e2e::Stack;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::{
    copy_floor::{self, Chunk, connect},
    cpu::{cpu_time, peak_memory},
    summary::{Summary, line},
};

/// What a program would do with its defaults; the harness of the tests is more patient.
const DEFAULTS: [(&str, &str); 2] = [("REDIS_TIMEOUT", "100ms"), ("KAFKA_SESSION_TIMEOUT", "15s")];

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Orders of a round.
    #[arg(short = 'n', long, default_value_t = 60_000)]
    orders: usize,
    /// Rounds; the worker and the floor take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// What both sides of a round are judged by.
#[derive(Clone, Copy, Debug, Serialize)]
struct Side {
    orders_per_second: f64,
    postgres_cpu_us: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    worker: Side,
    floor: Side,
    worker_cpu_us: f64,
    worker_peak_mib: f64,
}

/// Runs the rounds and prints what they gave.
///
/// # Errors
/// When a service does not answer, or a round did not store what was sent.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let mut chunks = Vec::new();
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let round = round(&runtime, options.orders, &mut chunks)?;
        eprintln!("round {number}: {}", serde_json::to_string(&round)?);
        rounds.push(round);
    }
    print(&rounds);
    Ok(())
}

/// The worker's turn, then the floor's with the rows that the worker wrote in the first round.
fn round(runtime: &Runtime, orders: usize, chunks: &mut Vec<Chunk>) -> anyhow::Result<Round> {
    let mut stack = DEFAULTS
        .iter()
        .fold(Stack::builder("bench"), |builder, (name, value)| {
            builder.variable(name, value)
        })
        .start();
    let url = stack.addresses().database_url.clone();
    let count = orders.to_string();
    stack
        .command(
            "producer",
            &["send", "-n", &count, "--min-items", "2", "--max-items", "3"],
        )
        .succeeded();

    stack.start_worker();
    stack.settle();
    let pid = stack.workers[0].process.id();
    let round = Round {
        worker: runtime.block_on(worker_side(&url, orders))?,
        worker_cpu_us: micros_per_order(cpu_time(pid)?, orders),
        worker_peak_mib: peak_memory(pid)? as f64 / f64::from(1 << 20),
        floor: {
            stack.stop_workers();
            if chunks.is_empty() {
                *chunks = runtime.block_on(copy_floor::rows_of(&url))?;
            }
            drop(stack);
            let empty = Stack::builder("bench-floor").start();
            runtime.block_on(floor_side(&empty.addresses().database_url, chunks, orders))?
        },
    };
    Ok(round)
}

async fn worker_side(url: &str, orders: usize) -> anyhow::Result<Side> {
    let client = connect(url).await?;
    let backends = client
        .query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'order-worker' AND datname = current_database()",
            &[],
        )
        .await?;
    let mut cpu = Duration::ZERO;
    for backend in &backends {
        cpu += cpu_time(backend.get::<_, i32>(0) as u32)?;
    }
    Ok(Side {
        orders_per_second: rate(url, orders).await?,
        postgres_cpu_us: micros_per_order(cpu, orders),
    })
}

async fn floor_side(url: &str, chunks: &[Chunk], orders: usize) -> anyhow::Result<Side> {
    let cpu = copy_floor::copy(url, chunks).await?;
    Ok(Side {
        orders_per_second: rate(url, orders).await?,
        postgres_cpu_us: micros_per_order(cpu, orders),
    })
}

/// Orders a second between the begin of the first transaction and that of the last one, whose own orders do not count.
async fn rate(url: &str, orders: usize) -> anyhow::Result<f64> {
    let row = connect(url)
        .await?
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE created_at < newest), \
                    extract(epoch FROM max(newest) - min(created_at))::float8 \
             FROM orders, (SELECT max(created_at) AS newest FROM orders) AS last",
            &[],
        )
        .await?;
    let (stored, counted, seconds): (i64, i64, f64) = (row.get(0), row.get(1), row.get(2));
    ensure!(
        stored == orders as i64,
        "{stored} orders were stored, not {orders}"
    );
    Ok(counted as f64 / seconds)
}

fn micros_per_order(time: Duration, orders: usize) -> f64 {
    time.as_secs_f64() * 1e6 / orders as f64
}

fn print(rounds: &[Round]) {
    let of = |value: fn(&Round) -> f64| Summary::of(rounds.iter().map(value));
    println!("ingest, median of {} rounds, least to most", rounds.len());
    line("worker, orders/s", of(|r| r.worker.orders_per_second));
    line("floor, orders/s", of(|r| r.floor.orders_per_second));
    line(
        "ratio",
        of(|r| r.worker.orders_per_second / r.floor.orders_per_second),
    );
    line(
        "worker, CPU of Postgres, us/order",
        of(|r| r.worker.postgres_cpu_us),
    );
    line(
        "floor, CPU of Postgres, us/order",
        of(|r| r.floor.postgres_cpu_us),
    );
    line(
        "ratio",
        of(|r| r.worker.postgres_cpu_us / r.floor.postgres_cpu_us),
    );
    line("worker, CPU of its own, us/order", of(|r| r.worker_cpu_us));
    line("worker, most memory, MiB", of(|r| r.worker_peak_mib));
}
