//! A worker with a backlog of new orders.

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

/// What a program would do with its defaults; the harness of the tests is more patient.
const DEFAULTS: [(&str, &str); 2] = [("REDIS_TIMEOUT", "100ms"), ("KAFKA_SESSION_TIMEOUT", "15s")];

/// Longer than anything takes here, however slow the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15 * 60);

const PAUSE: Duration = Duration::from_millis(200);

/// Options of the producer with which it sends the same orders each time.
pub(crate) const SAME_ORDERS: [&str; 2] = ["--seed", "1"];

/// Before the first order of any database.
pub(crate) const EVER: SystemTime = SystemTime::UNIX_EPOCH;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Orders of a round.
    #[arg(short = 'n', long, default_value_t = 60_000)]
    orders: usize,
    /// Rounds; the worker and the floor take turns.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// What both sides of a round are judged by.
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

/// Runs the rounds.
///
/// # Errors
/// When a service does not answer, or a round did not store what was sent.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let runtime = Runtime::new()?;
    let mut chunks = Vec::new();
    let rounds = rounds(options.rounds, || {
        round(&runtime, options.orders, &mut chunks)
    })?;
    let method = format!(
        "a worker with everything on but traces works off {} new orders; floor: binary COPY of the same rows, 1000 orders \
         a transaction, by one connection into the same schema",
        options.orders
    );
    Ok(Part::new("ingest", &method, figures(&rounds)))
}

/// What each of `count` rounds gave; tells each as it ends.
///
/// # Errors
/// Those of `round`.
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

/// A system without a worker whose programs have their own defaults.
pub(crate) fn stack(name: &'static str) -> Stack {
    let builder = DEFAULTS
        .iter()
        .fold(Stack::builder(name), |builder, (name, value)| {
            builder.variable(name, value)
        });
    builder.start()
}

/// Sends so many new orders of 2 to 3 items.
///
/// # Errors
/// When that takes longer than anybody would wait.
pub(crate) fn send(stack: &Stack, orders: usize) -> anyhow::Result<()> {
    send_with(stack, orders, &[])
}

/// As [`send`], with more options of the producer.
///
/// # Errors
/// When that takes longer than anybody would wait.
pub(crate) fn send_with(stack: &Stack, orders: usize, options: &[&str]) -> anyhow::Result<()> {
    let count = orders.to_string();
    let arguments = ["send", "-n", &count, "--min-items", "2", "--max-items", "3"];
    stack
        .command_within(PATIENCE, "producer", &[&arguments, options].concat(), &[])
        .context("the producer did not come to an end")?
        .succeeded();
    Ok(())
}

/// Waits until the group has finished everything that was sent.
///
/// # Errors
/// When that takes longer than anybody would wait.
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

/// The worker's turn, then the floor's with the rows that the worker wrote in the first round.
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

/// What the workers' sessions have cost Postgres, and how fast the orders came that were stored since then.
///
/// # Errors
/// When there are not so many.
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

/// As [`worker_side`], of a `COPY` that runs now.
///
/// # Errors
/// When Postgres does not take the rows.
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

/// CPU time of all sessions of that name in this database.
///
/// # Errors
/// When Postgres does not answer.
pub(crate) async fn cpu_of_sessions(url: &str, name: &str) -> anyhow::Result<Duration> {
    let sessions = connect(url)
        .await?
        .query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()",
            &[&name],
        )
        .await?;
    let mut cpu = Duration::ZERO;
    for session in &sessions {
        cpu += cpu_time(session.get::<_, i32>(0) as u32)?;
    }
    Ok(cpu)
}

/// Orders a second between the begin of the first transaction and that of the last one, whose own orders do not count.
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

/// How many bytes of write-ahead log the server has written in its life.
async fn wal_position(url: &str) -> anyhow::Result<u64> {
    number(url, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").await
}

/// What the four tables and their indexes take.
///
/// # Errors
/// When Postgres does not answer.
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

/// CPU time that Redis has used, and the memory that it has in use.
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
            .with_context(|| format!("Redis tells no {name}"))
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
            "CPU of Postgres an order",
            "µs",
            of(|r| r.worker.postgres_cpu_us),
        )
        .floor(of(|r| r.floor.postgres_cpu_us))
        .goal(Goal::AtMost(1.2)),
        Figure::new("CPU of the worker an order", "µs", of(|r| r.worker_cpu_us)),
        Figure::new("CPU of Redis an order", "µs", of(|r| r.redis_cpu_us)),
        Figure::new(
            "most memory of the worker",
            "MiB",
            of(|r| r.worker_peak_mib),
        ),
        Figure::new(
            "an order in Postgres, with indexes",
            "bytes",
            of(|r| r.postgres_bytes),
        ),
        Figure::new("write-ahead log an order", "bytes", of(|r| r.wal_bytes)),
        Figure::new("an order in Redis", "bytes", of(|r| r.redis_bytes)),
    ]
}
