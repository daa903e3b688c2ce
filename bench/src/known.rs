//! Measures a worker with a backlog of stored orders: redelivered, then updated.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use e2e::{Stack, Worker};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::{
    copy_floor::{self, Chunk},
    ingest::{
        self, EVER, PATIENCE, SAME_ORDERS, Side, cpu_of_sessions, floor_side, micros_per_order,
    },
    part::{Figure, Goal, Part},
};

/// Time between two reads of the worker's count of finished records.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Orders per round.
    #[arg(short = 'n', long, default_value_t = 30_000)]
    orders: usize,
    /// Rounds; redelivery, updates and the floor take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    redelivered: Side,
    updated: Side,
    floor: Side,
}

/// Runs the part.
///
/// # Errors
/// If a service does not respond, or a worker does not finish its backlog.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let runtime = Runtime::new()?;
    let mut chunks = Vec::new();
    let rounds = ingest::rounds(options.rounds, || {
        round(&runtime, options.orders, &mut chunks)
    })?;
    let method = format!(
        "{} orders are stored; a worker of another group reads them again, then all of them \
         arrive in a newer version; \
         floor: COPY of the same rows into empty tables, as in ingest",
        options.orders
    );
    Ok(Part::new("known", &method, figures(&rounds)))
}

fn round(runtime: &Runtime, orders: usize, chunks: &mut Vec<Chunk>) -> anyhow::Result<Round> {
    let mut stack = ingest::stack("bench-known");
    let url = stack.addresses().database_url.clone();
    ingest::send_with(&stack, orders, &SAME_ORDERS)?;
    stack.start_worker();
    ingest::finish(&stack)?;
    stack.settle();
    stack.stop_workers();
    if chunks.is_empty() {
        *chunks = runtime.block_on(copy_floor::rows_of(&url))?;
    }

    stack.use_new_group();
    let redelivered = turn(runtime, &mut stack, orders, "stale")?;
    ingest::send_with(&stack, orders, &SAME_ORDERS)?;
    let updated = turn(runtime, &mut stack, orders, "stored")?;

    drop(stack);
    let empty = Stack::builder("bench-floor").start();
    let url = &empty.addresses().database_url;
    Ok(Round {
        redelivered,
        updated,
        floor: runtime.block_on(floor_side(url, EVER, chunks, orders))?,
    })
}

/// Measures a new worker. `orders` records wait for it, and all must end with `outcome`.
fn turn(
    runtime: &Runtime,
    stack: &mut Stack,
    orders: usize,
    outcome: &str,
) -> anyhow::Result<Side> {
    let worker = stack.start_worker();
    let orders_per_second = rate(worker, orders as u64, outcome)?;
    stack.settle();
    let cpu = runtime.block_on(cpu_of_sessions(
        &stack.addresses().database_url,
        "order-worker",
    ))?;
    stack.stop_workers();
    Ok(Side {
        orders_per_second,
        postgres_cpu_us: micros_per_order(cpu, orders),
    })
}

/// Records per second, from the first read that shows finished records.
fn rate(worker: &Worker, orders: u64, outcome: &str) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut first = None;
    loop {
        let (now, finished) = (Instant::now(), worker.messages(outcome));
        if finished > 0 {
            let (began, before) = *first.get_or_insert((now, finished));
            if finished == orders {
                ensure!(finished > before, "too few records to measure their rate");
                return Ok((finished - before) as f64 / (now - began).as_secs_f64());
            }
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{finished} of {orders} records were {outcome} after {PATIENCE:?}"
        );
        thread::sleep(PAUSE);
    }
}

fn figures(rounds: &[Round]) -> Vec<Figure> {
    let of = |value: fn(&Round) -> f64| rounds.iter().map(value);
    let rate = |what: &str, side: fn(&Round) -> f64| {
        Figure::new(what, "orders/s", of(side))
            .floor(of(|r| r.floor.orders_per_second))
            .goal(Goal::AtLeast(0.5))
    };
    let cpu = |what: &str, side: fn(&Round) -> f64| {
        Figure::new(what, "µs", of(side)).floor(of(|r| r.floor.postgres_cpu_us))
    };
    vec![
        rate("worker, backlog read once more", |r| {
            r.redelivered.orders_per_second
        }),
        rate("worker, backlog of updates", |r| {
            r.updated.orders_per_second
        }),
        cpu("Postgres CPU per redelivered record", |r| {
            r.redelivered.postgres_cpu_us
        }),
        cpu("Postgres CPU per update", |r| r.updated.postgres_cpu_us),
    ]
}
