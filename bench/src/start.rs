//! Measures the time from the start of a process until it is ready, and until a worker that joins a
//! running group has partitions.

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

/// Number of stored orders: as many as the api loads by default before it is ready.
const STORED: usize = 1000;

/// Time between two requests of `/readyz`.
const PAUSE: Duration = Duration::from_millis(1);

/// Longest start before the measurement fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Starts of each program.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// Runs the part.
///
/// # Errors
/// If a process does not become ready.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let mut stack = ingest::stack("bench-start");
    ingest::send(&stack, STORED)?;
    stack.start_worker();
    stack.settle();
    stack.stop_workers();
    let (mut workers, mut apis) = (Vec::new(), Vec::new());
    let (mut joins, mut pauses) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
        let (worker, api) = (worker(&mut stack)?, api(&mut stack)?);
        let (join, pause) = join(&mut stack)?;
        eprintln!(
            "start {number}: worker {worker:.0} ms, api {api:.0} ms, joining worker {join:.0} ms, \
             pause {pause:.0} ms"
        );
        workers.push(worker);
        apis.push(api);
        joins.push(join);
        pauses.push(pause);
    }
    let method = format!(
        "from the start of the process to the first 200 of /readyz, polled every ms; the worker \
         joins an empty group (group.initial.rebalance.delay.ms=0), the api loads {STORED} \
         orders. A worker that joins another is ready when it has partitions, too; the pause is \
         the time in which these belong to neither, according to the logs"
    );
    let figures = vec![
        Figure::new("start to ready, worker", "ms", workers).goal(Goal::AtMost(1000.0)),
        Figure::new("start to ready, api with warm-up", "ms", apis).goal(Goal::AtMost(1000.0)),
        Figure::new(
            "start to ready with partitions, in a running group",
            "ms",
            joins,
        )
        .goal(Goal::AtMost(1000.0)),
        Figure::new("pause of reassigned partitions", "ms", pauses).goal(Goal::AtMost(1000.0)),
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

/// Milliseconds until a worker that joins a running group is ready and has partitions, and
/// milliseconds during which no worker had these partitions.
fn join(stack: &mut Stack) -> anyhow::Result<(f64, f64)> {
    stack.start_worker();
    let start = Instant::now();
    stack.launch_worker(&[]);
    let has_logged = |index: usize, event: &str| stack.workers[index].process.log().contains(event);
    let mut revoked = None;
    while !has_logged(1, "partitions assigned") {
        if revoked.is_none() && has_logged(0, "partitions revoked") {
            revoked = Some(start.elapsed());
        }
        ensure!(start.elapsed() < PATIENCE, "no partitions");
        thread::sleep(PAUSE);
    }
    let assigned = start.elapsed();
    let pause = assigned - revoked.unwrap_or(assigned);
    let joined = &mut stack.workers[1];
    let admin = joined.admin.address();
    let ready = ready(&mut joined.process, &admin, start)?;
    stack.stop_workers();
    Ok((ready, pause.as_secs_f64() * 1e3))
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

/// Waits until the process is ready. Returns the milliseconds since `start`.
fn ready(process: &mut Process, admin: &str, start: Instant) -> anyhow::Result<f64> {
    let (http, url) = (Http::new(), format!("http://{admin}/readyz"));
    while !http
        .try_get(&url, &[])
        .is_ok_and(|answer| answer.status == 200)
    {
        ensure!(
            process.ended().is_none(),
            "the process ended: {}",
            process.log()
        );
        ensure!(start.elapsed() < PATIENCE, "not ready: {}", process.log());
        thread::sleep(PAUSE);
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
