//! Measures the time until workers have repaired a Redis that returned with older content.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use e2e::Stack;

use crate::{
    ingest::{self, PATIENCE, SAME_ORDERS},
    part::{Figure, Goal, Part},
    table::number,
};

/// Time between two reads of the watermark.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Orders that change after Redis is saved. Above 100000 the worker deletes all entries instead
    /// of rewriting them, and this command fails.
    #[arg(short = 'n', long, default_value_t = 100_000)]
    orders: usize,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// Runs the part.
///
/// # Errors
/// If Redis is not repaired, or the worker deleted the entries instead of rewriting them.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let mut seconds = Vec::new();
    for number in 1..=options.rounds {
        let round = round(options.orders)?;
        eprintln!("round {number}: {round:.2} s");
        seconds.push(round);
    }
    let orders = number(options.orders as f64);
    let method = format!(
        "{orders} orders are stored, Redis is saved, all orders are replaced, Redis dies and \
         returns with the saved content; from its first answer until one worker has moved the \
         watermark, and so has written all orders again"
    );
    let what = format!("repair of a Redis with {orders} old orders");
    let figure = Figure::new(&what, "s", seconds).goal(Goal::AtMost(20.0));
    Ok(Part::new("repair", &method, vec![figure]))
}

fn round(orders: usize) -> anyhow::Result<f64> {
    let mut stack = ingest::stack("bench-repair");
    stack.start_worker();
    store(&stack, orders)?;
    stack.redis.save();
    store(&stack, orders)?;
    stack.redis.crash();
    stack.redis.start_again();
    let (start, old) = (Instant::now(), stack.redis.watermark()?);
    while stack.redis.watermark()? == old {
        ensure!(start.elapsed() < PATIENCE, "not repaired");
        thread::sleep(PAUSE);
    }
    let taken = start.elapsed();
    let log = stack.workers[0].process.log();
    ensure!(
        log.contains("rewrote the orders that changed since the watermark"),
        "the entries were not written again: {log}"
    );
    Ok(taken.as_secs_f64())
}

/// Stores the same orders as before, in a newer version.
fn store(stack: &Stack, orders: usize) -> anyhow::Result<()> {
    ingest::send_with(stack, orders, &SAME_ORDERS)?;
    ingest::finish(stack)?;
    stack.settle();
    Ok(())
}
