//! Measures several workers that share one backlog.

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::{
    cpu::cpu_time,
    ingest::{self, EVER, Side, micros_per_order, worker_side},
    part::{Figure, Part},
};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Numbers of workers, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    workers: Vec<i64>,
    /// Orders per round.
    #[arg(short = 'n', long, default_value_t = 120_000)]
    orders: usize,
    /// Rounds; the numbers of workers take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    all: Side,
    worker_cpu_us: f64,
}

/// Runs the part.
///
/// # Errors
/// If a service does not respond, or a worker ends.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let runtime = Runtime::new()?;
    let mut numbers: Vec<(i64, Vec<Round>)> = options
        .workers
        .iter()
        .map(|workers| (*workers, Vec::new()))
        .collect();
    for number in 1..=options.rounds {
        for (workers, rounds) in &mut numbers {
            let round = round(&runtime, *workers, options.orders)?;
            eprintln!(
                "{workers} workers, round {number}: {}",
                serde_json::to_string(&round)?
            );
            rounds.push(round);
        }
    }
    let method = format!(
        "a backlog of {} orders, all workers started at once; all services share the cores of one \
         machine, so the cost per order counts, not the total speed",
        options.orders
    );
    Ok(Part::new("workers", &method, figures(&numbers)))
}

fn round(runtime: &Runtime, workers: i64, orders: usize) -> anyhow::Result<Round> {
    let mut stack = ingest::stack("bench-workers");
    ingest::send(&stack, orders)?;
    for _ in 0..workers {
        stack.launch_worker(&[]);
    }
    ingest::finish(&stack)?;
    let url = &stack.addresses().database_url;
    let all = runtime.block_on(worker_side(url, EVER, orders))?;
    let mut cpu = std::time::Duration::ZERO;
    for worker in &mut stack.workers {
        ensure!(worker.process.ended().is_none(), "a worker ended");
        cpu += cpu_time(worker.process.id())?;
    }
    stack.stop_workers();
    Ok(Round {
        all,
        worker_cpu_us: micros_per_order(cpu, orders),
    })
}

fn figures(numbers: &[(i64, Vec<Round>)]) -> Vec<Figure> {
    numbers
        .iter()
        .flat_map(|(workers, rounds)| {
            let of = |value: fn(&Round) -> f64| rounds.iter().map(value);
            let name = |what: &str| match workers {
                1 => format!("{what}, 1 worker"),
                _ => format!("{what}, {workers} workers"),
            };
            [
                Figure::new(
                    &name("backlog of new orders"),
                    "orders/s",
                    of(|r| r.all.orders_per_second),
                ),
                Figure::new(
                    &name("CPU of all workers per order"),
                    "µs",
                    of(|r| r.worker_cpu_us),
                ),
                Figure::new(
                    &name("Postgres CPU per order"),
                    "µs",
                    of(|r| r.all.postgres_cpu_us),
                ),
            ]
        })
        .collect()
}
