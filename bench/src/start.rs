//! How long it takes from the start of a process until it is ready.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use e2e::{Http, Process, Stack};

use crate::{
    ingest,
    part::{Figure, Goal, Part},
};

/// As many as the api loads by default before it is ready.
const STORED: usize = 1000;

/// Between two looks at `/readyz`.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Starts of each program.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// # Errors
/// When a process does not become ready.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let mut stack = ingest::stack("bench-start");
    ingest::send(&stack, STORED)?;
    stack.start_worker();
    stack.settle();
    stack.stop_workers();
    let (mut workers, mut apis) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
        let (worker, api) = (worker(&mut stack)?, api(&mut stack)?);
        eprintln!("start {number}: worker {worker:.0} ms, api {api:.0} ms");
        workers.push(worker);
        apis.push(api);
    }
    let method = format!(
        "from the start of the process to the first 200 of /readyz, asked every ms; the worker joins a group that nobody is in \
         (group.initial.rebalance.delay.ms=0), the api loads {STORED} orders"
    );
    let figures = vec![
        Figure::new("start to ready, worker", "ms", workers).goal(Goal::AtMost(1000.0)),
        Figure::new("start to ready, api with warm-up", "ms", apis).goal(Goal::AtMost(1000.0)),
    ];
    Ok(Part::new("start", &method, figures))
}

fn worker(stack: &mut Stack) -> anyhow::Result<f64> {
    let start = Instant::now();
    let worker = stack.launch_worker(&[]);
    let admin = worker.admin.address();
    let taken = ready(&mut worker.process, &admin, start)?;
    stack.stop_workers();
    Ok(taken)
}

fn api(stack: &mut Stack) -> anyhow::Result<f64> {
    let start = Instant::now();
    let api = stack.launch_api(&[]);
    let admin = api.admin.address();
    let taken = ready(&mut api.process, &admin, start)?;
    api.process.terminate();
    stack.apis.clear();
    Ok(taken)
}

/// Milliseconds since `start` once the process is ready.
fn ready(process: &mut Process, admin: &str, start: Instant) -> anyhow::Result<f64> {
    let (http, url) = (Http::new(), format!("http://{admin}/readyz"));
    while !http
        .try_get(&url, &[])
        .is_ok_and(|answer| answer.status == 200)
    {
        ensure!(process.ended().is_none(), "it ended: {}", process.log());
        ensure!(start.elapsed() < PATIENCE, "not ready: {}", process.log());
        thread::sleep(PAUSE);
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
