//! Measures the peak memory of a worker with a large backlog, and of an api with a full local
//! cache.

use anyhow::ensure;
use clap::Args;
use e2e::Stack;
use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::StatusCode;
use tokio::runtime::Runtime;

use crate::{
    client::Client,
    copy_floor::connect,
    cpu::peak_memory,
    ingest,
    part::{Figure, Goal, Part},
    table::number,
};

/// Size of the local cache of the api in MiB; its default.
const LOCAL_CACHE: usize = 64;

/// Number of orders to read. Each takes more than a kilobyte, so they fill the cache twice.
const READ: i64 = 120_000;

/// Concurrent requests.
const CONCURRENCY: usize = 32;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Orders in the backlog of the worker.
    #[arg(short = 'n', long, default_value_t = 1_000_000)]
    orders: usize,
}

/// Runs the part.
///
/// # Errors
/// If a service does not respond.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let mut stack = ingest::stack("bench-memory");
    ingest::send(&stack, options.orders)?;
    let pid = stack.start_worker().process.id();
    ingest::finish(&stack)?;
    let worker = mebibytes(peak_memory(pid)?);
    stack.stop_workers();
    eprintln!("worker: {worker:.0} MiB");
    let api = Runtime::new()?.block_on(api(&mut stack))?;
    eprintln!("api: {api:.0} MiB");
    let method = format!(
        "peak resident memory: a worker that processes {} orders; an api that serves {READ} \
         different orders with LOCAL_CACHE_MAX_BYTES={LOCAL_CACHE}MiB",
        options.orders
    );
    let worker = Figure::new(
        &format!(
            "memory, worker with a backlog of {}",
            number(options.orders as f64)
        ),
        "MiB",
        [worker],
    );
    let api = Figure::new("memory, api with a full local cache", "MiB", [api]);
    let figures = vec![
        worker.goal(Goal::AtMost(128.0)),
        api.goal(Goal::AtMost((LOCAL_CACHE + 64) as f64)),
    ];
    Ok(Part::new("memory", &method, figures))
}

async fn api(stack: &mut Stack) -> anyhow::Result<f64> {
    let limit = format!("{LOCAL_CACHE}MiB");
    let api = stack.start_api_with(&[
        ("LOCAL_CACHE_MAX_BYTES", &limit),
        // No entry expires before the cache is full.
        ("LOCAL_CACHE_TTL", "1h"),
    ]);
    let (pid, url) = (api.process.id(), api.url());
    let rows = connect(&stack.addresses().database_url)
        .await?
        .query("SELECT order_uid FROM orders LIMIT $1", &[&READ])
        .await?;
    let client = Client::new();
    stream::iter(rows)
        .map(|row| {
            let url = format!("{url}/order/{}", row.get::<_, &str>(0));
            let client = client.clone();
            async move {
                let status = client.status(&url).await?;
                ensure!(status == StatusCode::OK, "{url}: {status}");
                Ok(())
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    Ok(mebibytes(peak_memory(pid)?))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
