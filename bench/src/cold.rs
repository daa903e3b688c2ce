//! Measures reads that bypass the caches, and their cost as the tables grow.

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use futures_util::{TryStreamExt, stream::FuturesUnordered};
use hyper::StatusCode;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::{
    client::Client,
    copy_floor::connect,
    cpu::cpu_time,
    fill::Fill,
    ingest::{self, cpu_of_sessions},
    part::{Figure, Part},
    table::number,
};

/// Number of orders that a worker stores. All other orders are copies of them.
const ORIGINALS: usize = 10_000;

/// Number of different orders in the requests of a round.
const ASKED: i64 = 5000;

/// Concurrent requests: as many as the api has Postgres connections by default.
const CONCURRENCY: usize = 8;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Numbers of stored orders, in ascending order, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    rows: Vec<i64>,
    /// Rounds per size.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds per round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Result of one round. CPU times are per read.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) requests_per_second: f64,
    pub(crate) api_cpu_us: f64,
    pub(crate) postgres_cpu_us: f64,
}

/// Runs the part.
///
/// # Errors
/// If a service does not respond, or a read fails.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let runtime = Runtime::new()?;
    let mut stack = ingest::stack("bench-cold");
    ingest::send(&stack, ORIGINALS)?;
    stack.start_worker();
    stack.settle();
    stack.stop_workers();
    let api = stack.start_api();
    let (pid, api_url) = (api.process.id(), api.url());
    let url = stack.addresses().database_url.clone();
    let duration = Duration::from_secs(options.seconds);
    let sizes = runtime.block_on(async {
        let mut fill = Fill::new(&url).await?;
        let mut sizes = Vec::new();
        for rows in &options.rows {
            fill.up_to(*rows).await?;
            let mut rounds = Vec::new();
            for number in 1..=options.rounds {
                let round = round(&url, &api_url, pid, duration).await?;
                eprintln!(
                    "{rows} orders, round {number}: {}",
                    serde_json::to_string(&round)?
                );
                rounds.push(round);
            }
            sizes.push((*rows, rounds));
        }
        anyhow::Ok(sizes)
    })?;
    let method = format!(
        "GET /order/<uid>?nocache=1 with {CONCURRENCY} concurrent requests, {ASKED} random orders \
         in turn; one statement and one round trip per read, as \
         shared/tests/services/round_trips.rs counts them"
    );
    Ok(Part::new("cold", &method, figures(&sizes)))
}

/// Measures one round of `duration`. `pid` is the process of the api.
///
/// # Errors
/// If a read fails.
pub(crate) async fn round(
    url: &str,
    api_url: &str,
    pid: u32,
    duration: Duration,
) -> anyhow::Result<Round> {
    let paths: Vec<String> = connect(url)
        .await?
        .query(
            "SELECT order_uid FROM orders ORDER BY random() LIMIT $1",
            &[&ASKED],
        )
        .await?
        .iter()
        .map(|row| format!("{api_url}/order/{}?nocache=1", row.get::<_, &str>(0)))
        .collect();
    let client = Client::new();
    // Warm-up: the first reads open connections and prepare the statement.
    read(&client, &paths, duration / 4).await?;
    let (cpu, sessions) = (cpu_time(pid)?, cpu_of_sessions(url, "order-api").await?);
    let start = Instant::now();
    let reads = read(&client, &paths, duration).await? as f64;
    let elapsed = start.elapsed();
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / reads;
    Ok(Round {
        requests_per_second: reads / elapsed.as_secs_f64(),
        api_cpu_us: micros(cpu_time(pid)? - cpu),
        postgres_cpu_us: micros(cpu_of_sessions(url, "order-api").await? - sessions),
    })
}

/// Sends requests until `duration` is over; returns their number.
async fn read(client: &Client, urls: &[String], duration: Duration) -> anyhow::Result<usize> {
    let start = Instant::now();
    let readers: FuturesUnordered<_> = (0..CONCURRENCY)
        .map(|first| async move {
            let mut reads = 0;
            for url in urls.iter().cycle().skip(first * urls.len() / CONCURRENCY) {
                if start.elapsed() >= duration {
                    break;
                }
                let status = client.status(url).await?;
                ensure!(status == StatusCode::OK, "{url}: {status}");
                reads += 1;
            }
            anyhow::Ok(reads)
        })
        .collect();
    let reads: Vec<usize> = readers.try_collect().await?;
    Ok(reads.iter().sum())
}

fn figures(sizes: &[(i64, Vec<Round>)]) -> Vec<Figure> {
    let figure =
        |what: &str, unit: &str, (rows, rounds): &(i64, Vec<Round>), value: fn(&Round) -> f64| {
            Figure::new(
                &format!("{what}, {} orders stored", number(*rows as f64)),
                unit,
                rounds.iter().map(value),
            )
        };
    sizes
        .iter()
        .flat_map(|size| {
            [
                figure("cold read", "requests/s", size, |r| r.requests_per_second),
                figure("Postgres CPU per cold read", "µs", size, |r| {
                    r.postgres_cpu_us
                }),
                figure("api CPU per cold read", "µs", size, |r| r.api_cpu_us),
            ]
        })
        .collect()
}
