//! Measures a worker with a backlog of new orders.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use clap::Args;
use e2e::Stack;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::{
    copy_floor::{self, Chunk, connect},
    cpu::{cpu_time, peak_memory},
    part::{Figure, Goal, Part},
};

/// Defaults of the programs. The test harness sets longer timeouts, which would change the figures.
const DEFAULTS: [(&str, &str); 2] = [("REDIS_TIMEOUT", "100ms"), ("KAFKA_SESSION_TIMEOUT", "15s")];

/// Limit of every wait, longer than any step takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15 * 60);

const PAUSE: Duration = Duration::from_millis(200);

/// Producer options that generate the same orders each time.
pub(crate) const SAME_ORDERS: [&str; 2] = ["--seed", "1"];

/// A time before the first order of any database.
pub(crate) const EVER: SystemTime = SystemTime::UNIX_EPOCH;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Orders per round.
    #[arg(short = 'n', long, default_value_t = 60_000)]
    orders: usize,
    /// Rounds; the worker and the floor take turns.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// Result of one side of a round. The CPU time is per order.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Side {
    pub(crate) orders_per_second: f64,
    pub(crate) postgres_cpu_us: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    worker: Side,
    floor: Side,
    worker_cpu_us: f64,
    worker_peak_mib: f64,
    redis_cpu_us: f64,
    redis_bytes: f64,
    wal_bytes: f64,
    postgres_bytes: f64,
}

/// Runs the part.
///
/// # Errors
/// If a service does not respond, or a round does not store all orders.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let runtime = Runtime::new()?;
    let mut chunks = Vec::new();
    let rounds = rounds(options.rounds, || {
        round(&runtime, options.orders, &mut chunks)
    })?;
    let method = format!(
        "a worker with all features except traces ingests {} new orders; floor: binary COPY of \
         the same rows, 1000 orders \
         per transaction, by one connection into the same schema",
        options.orders
    );
    Ok(Part::new("ingest", &method, figures(&rounds)))
}

/// Runs `round` `count` times, prints each result to standard error, and returns all results.
///
/// # Errors
/// If `round` fails.
pub(crate) fn rounds<R: Serialize>(
    count: u16,
    mut round: impl FnMut() -> anyhow::Result<R>,
) -> anyhow::Result<Vec<R>> {
    let mut rounds = Vec::new();
    for number in 1..=count {
        let round = round()?;
        eprintln!("round {number}: {}", serde_json::to_string(&round)?);
        rounds.push(round);
    }
    Ok(rounds)
}

/// Starts a system without a worker, in which the programs keep their default timeouts.
pub(crate) fn stack(name: &'static str) -> Stack {
    let builder = DEFAULTS
        .iter()
        .fold(Stack::builder(name), |builder, (name, value)| {
            builder.variable(name, value)
        });
    builder.start()
}

/// Sends `orders` new orders of 2 to 3 items.
///
/// # Errors
/// If that takes longer than [`PATIENCE`].
pub(crate) fn send(stack: &Stack, orders: usize) -> anyhow::Result<()> {
    send_with(stack, orders, &[])
}

/// Like [`send`], with more options of the producer.
///
/// # Errors
/// If that takes longer than [`PATIENCE`].
pub(crate) fn send_with(stack: &Stack, orders: usize, options: &[&str]) -> anyhow::Result<()> {
    let count = orders.to_string();
    let arguments = ["send", "-n", &count, "--min-items", "2", "--max-items", "3"];
    stack
        .command_within(PATIENCE, "producer", &[&arguments, options].concat(), &[])
        .context("the producer did not end")?
        .succeeded();
    Ok(())
}

/// Waits until the consumer group has finished all records of the topic.
///
/// # Errors
/// If that takes longer than [`PATIENCE`].
pub(crate) fn finish(stack: &Stack) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let (finished, all) = stack.progress();
        if finished == all {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{finished} of {all} records after {PATIENCE:?}"
        );
        thread::sleep(PAUSE);
    }
}

/// Measures the worker, then the floor with the rows that the worker wrote in the first round.
fn round(runtime: &Runtime, orders: usize, chunks: &mut Vec<Chunk>) -> anyhow::Result<Round> {
    let mut stack = stack("bench");
    let url = stack.addresses().database_url.clone();
    send(&stack, orders)?;
    let wal = runtime.block_on(wal_position(&url))?;

    stack.start_worker();
    finish(&stack)?;
    stack.settle();
    let pid = stack.workers[0].process.id();
    let (redis_cpu, redis_bytes) = redis_use(&stack.addresses().redis_url)?;
    let each = |bytes: u64| bytes as f64 / orders as f64;
    let round = Round {
        worker: runtime.block_on(worker_side(&url, EVER, orders))?,
        worker_cpu_us: micros_per_order(cpu_time(pid)?, orders),
        worker_peak_mib: peak_memory(pid)? as f64 / f64::from(1 << 20),
        redis_cpu_us: micros_per_order(redis_cpu, orders),
        redis_bytes: each(redis_bytes),
        wal_bytes: each(runtime.block_on(wal_position(&url))? - wal),
        postgres_bytes: each(runtime.block_on(stored_bytes(&url))?),
        floor: {
            stack.stop_workers();
            if chunks.is_empty() {
                *chunks = runtime.block_on(copy_floor::rows_of(&url))?;
            }
            drop(stack);
            let empty = Stack::builder("bench-floor").start();
            let url = &empty.addresses().database_url;
            runtime.block_on(floor_side(url, EVER, chunks, orders))?
        },
    };
    Ok(round)
}

/// Measures the workers: the Postgres CPU time of their sessions, and the rate of the orders that
/// they stored since `since`.
///
/// # Errors
/// If the number of these orders is not `orders`.
pub(crate) async fn worker_side(
    url: &str,
    since: SystemTime,
    orders: usize,
) -> anyhow::Result<Side> {
    let cpu = cpu_of_sessions(url, "order-worker").await?;
    Ok(Side {
        orders_per_second: rate(url, since, orders).await?,
        postgres_cpu_us: micros_per_order(cpu, orders),
    })
}

/// Like [`worker_side`], for a `COPY` that this function runs.
///
/// # Errors
/// If Postgres rejects the rows, or the number of stored orders is not `orders`.
pub(crate) async fn floor_side(
    url: &str,
    since: SystemTime,
    chunks: &[Chunk],
    orders: usize,
) -> anyhow::Result<Side> {
    let cpu = copy_floor::copy(url, chunks).await?;
    Ok(Side {
        orders_per_second: rate(url, since, orders).await?,
        postgres_cpu_us: micros_per_order(cpu, orders),
    })
}

/// CPU time of all sessions in this database whose `application_name` is `name`.
///
/// # Errors
/// If Postgres does not respond.
pub(crate) async fn cpu_of_sessions(url: &str, name: &str) -> anyhow::Result<Duration> {
    let sessions = connect(url)
        .await?
        .query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = $1 \
             AND datname = current_database()",
            &[&name],
        )
        .await?;
    let mut cpu = Duration::ZERO;
    for session in &sessions {
        cpu += cpu_time(session.get::<_, i32>(0) as u32)?;
    }
    Ok(cpu)
}

/// Orders per second, from the start of the first transaction to the start of the last. The orders
/// of the last transaction do not count.
async fn rate(url: &str, since: SystemTime, orders: usize) -> anyhow::Result<f64> {
    let row = connect(url)
        .await?
        .query_one(
            "WITH new AS MATERIALIZED (SELECT created_at FROM orders WHERE created_at >= $1), \
                  last AS MATERIALIZED (SELECT max(created_at) AS newest FROM new) \
             SELECT count(*), count(*) FILTER (WHERE created_at < newest), \
                    extract(epoch FROM max(newest) - min(created_at))::float8 FROM new, last",
            &[&since],
        )
        .await?;
    let (stored, counted, seconds): (i64, i64, f64) = (row.get(0), row.get(1), row.get(2));
    ensure!(
        stored == orders as i64,
        "{stored} orders were stored, not {orders}"
    );
    Ok(counted as f64 / seconds)
}

/// Bytes of write-ahead log that the server has written since its creation.
async fn wal_position(url: &str) -> anyhow::Result<u64> {
    number(url, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").await
}

/// Size of the four tables with their indexes, in bytes.
///
/// # Errors
/// If Postgres does not respond.
pub(crate) async fn stored_bytes(url: &str) -> anyhow::Result<u64> {
    let sizes = "SELECT sum(pg_total_relation_size(name::regclass)) \
                 FROM unnest(ARRAY['orders', 'deliveries', 'payments', 'items']) AS name";
    number(url, sizes).await
}

async fn number(url: &str, query: &str) -> anyhow::Result<u64> {
    let query = format!("SELECT ({query})::bigint");
    let number: i64 = connect(url).await?.query_one(&query, &[]).await?.get(0);
    Ok(number as u64)
}

/// CPU time and memory that Redis uses.
fn redis_use(url: &str) -> anyhow::Result<(Duration, u64)> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let info: String = redis::cmd("INFO").query(&mut connection)?;
    let value = |name: &str| -> anyhow::Result<f64> {
        info.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .parse()
                    .ok()
            })
            .with_context(|| format!("INFO of Redis has no {name}"))
    };
    let cpu = value("used_cpu_user")? + value("used_cpu_sys")?;
    Ok((Duration::from_secs_f64(cpu), value("used_memory")? as u64))
}

pub(crate) fn micros_per_order(time: Duration, orders: usize) -> f64 {
    time.as_secs_f64() * 1e6 / orders as f64
}

fn figures(rounds: &[Round]) -> Vec<Figure> {
    let of = |value: fn(&Round) -> f64| rounds.iter().map(value);
    vec![
        Figure::new(
            "worker, backlog of new orders",
            "orders/s",
            of(|r| r.worker.orders_per_second),
        )
        .floor(of(|r| r.floor.orders_per_second))
        .goal(Goal::AtLeast(1.0)),
        Figure::new(
            "Postgres CPU per order",
            "µs",
            of(|r| r.worker.postgres_cpu_us),
        )
        .floor(of(|r| r.floor.postgres_cpu_us))
        .goal(Goal::AtMost(1.2)),
        Figure::new("worker CPU per order", "µs", of(|r| r.worker_cpu_us)),
        Figure::new("Redis CPU per order", "µs", of(|r| r.redis_cpu_us)),
        Figure::new(
            "peak memory of the worker",
            "MiB",
            of(|r| r.worker_peak_mib),
        ),
        Figure::new(
            "size of an order in Postgres, with indexes",
            "bytes",
            of(|r| r.postgres_bytes),
        ),
        Figure::new("write-ahead log per order", "bytes", of(|r| r.wal_bytes)),
        Figure::new("size of an order in Redis", "bytes", of(|r| r.redis_bytes)),
    ]
}
