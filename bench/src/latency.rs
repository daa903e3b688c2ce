//! Measures the latency from the call of a Kafka producer until the api returns the order.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use e2e::{Demand, Stack};
use hyper::StatusCode;
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use shared::order::{Order, sample::Generator};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinSet};

use crate::{
    client::Client,
    ingest,
    part::{Figure, Goal, Part},
    summary::percentile,
};

/// Shortest time between two requests for the same order. The tokio timer ticks every millisecond,
/// so a request may be 1 ms late.
const PAUSE: Duration = Duration::from_millis(1);

/// Divisor of the elapsed time of an order; the pause is at least the quotient. Without this limit
/// a slow system would receive more requests than a fast one, and become slower still.
const PART_OF_ITS_TIME: u32 = 16;

/// Lead of the early request that every other order gets before it is sent. The replicas cache "not
/// found" for 1 s, so they still hold it when the order is sent.
const ASKED_BEFORE: Duration = Duration::from_millis(500);

/// Longest latency of one order before the measurement fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Duration of the load before the first round. It opens connections and prepares statements. A
/// Kafka broker that has just started compiles its code meanwhile, which takes half a core.
const WARM_UP: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Rounds under load.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds per round.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Orders per second under load.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Measure every n-th order. Measuring all orders would add load of its own.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Linger of the measuring Kafka producer in milliseconds. The `producer` program uses 5.
    #[arg(long, default_value_t = 5)]
    linger: u32,
}

/// A stream of orders at a constant rate.
#[derive(Clone, Copy)]
struct Load {
    rate: u32,
    every: u32,
    duration: Duration,
}

/// Result of one stream.
struct Round {
    /// Latency of each measured order in ms, in ascending order.
    taken: Vec<f64>,
    /// Share of the wanted CPU time that the host gave to other guests (steal), from 0 to 1. Steal
    /// delays the slowest orders.
    stolen: f64,
}

/// Task of the requesting side for one order.
enum Task {
    /// Request the order once, before it is sent, so that the replicas cache that it does not
    /// exist.
    Ask(String),
    /// Request the order until a replica returns it. Holds the time at which it was sent.
    Await(String, Instant),
}

/// Runs the part.
///
/// # Errors
/// If a service does not respond, or an order does not appear.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let runtime = Runtime::new()?;
    let mut stack = ingest::stack("bench-latency");
    stack.start_worker();
    stack.start_api();
    stack.start_api();
    let producer = producer(&stack.addresses().brokers, options.linger)?;
    let busy = Load {
        rate: options.rate,
        every: options.every,
        duration: Duration::from_secs(options.seconds),
    };
    let idle = Load {
        rate: 10,
        every: 1,
        duration: busy.duration / 2,
    };
    let measure = |load: Load| -> anyhow::Result<Round> {
        let before = Demand::so_far();
        let mut taken = stream(&runtime, &stack, &producer, load)?;
        taken.sort_by(f64::total_cmp);
        let stolen = Demand::so_far().stolen_since(before);
        Ok(Round { taken, stolen })
    };
    measure(Load {
        duration: WARM_UP,
        ..busy
    })?;
    let (mut under_load, mut one_by_one) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
        for (load, rounds) in [(busy, &mut under_load), (idle, &mut one_by_one)] {
            let round = measure(load)?;
            eprintln!(
                "round {number}, {} orders/s: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}, \
                 steal {:.0} %",
                load.rate,
                percentile(&round.taken, 0.5),
                percentile(&round.taken, 0.99),
                percentile(&round.taken, 1.0),
                round.taken.len(),
                round.stolen * 100.0
            );
            rounds.push(round);
        }
    }
    Ok(part(options, &under_load, &one_by_one))
}

fn part(options: &Options, under_load: &[Round], one_by_one: &[Round]) -> Part {
    let figure = |what: &str, rounds: &[Round], rank| {
        let values = rounds.iter().map(|round| percentile(&round.taken, rank));
        Figure::new(what, "ms", values)
    };
    let name = |what| format!("produce to visible, {} orders/s, {what}", options.rate);
    let stolen = under_load.iter().map(|round| round.stolen * 100.0);
    let method = format!(
        "one worker, two api replicas; from the call of the producing client (linger {} ms) to \
         the first 200, polled every 1 to 2 ms, beyond {PART_OF_ITS_TIME} ms at each \
         {PART_OF_ITS_TIME}th of the time so far; every other order had been requested before; \
         one in {} was sampled, {} of them; {} s of the same load before",
        options.linger,
        options.every,
        under_load
            .iter()
            .map(|round| round.taken.len())
            .sum::<usize>(),
        WARM_UP.as_secs()
    );
    Part::new(
        "latency",
        &method,
        vec![
            figure(&name("p50"), under_load, 0.5).goal(Goal::AtMost(15.0)),
            figure(&name("p99"), under_load, 0.99).goal(Goal::AtMost(50.0)),
            figure(&name("max"), under_load, 1.0),
            Figure::new(&name("steal"), "%", stolen),
            figure("produce to visible, 10 orders/s, p50", one_by_one, 0.5),
        ],
    )
}

/// Creates a Kafka producer with the settings of the `producer` program, except the linger.
pub(crate) fn producer(
    brokers: &str,
    linger: u32,
) -> anyhow::Result<ThreadedProducer<DefaultProducerContext>> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", linger.to_string())
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true")
        .create()?;
    Ok(producer)
}

/// Sends one stream. Returns the latency of each measured order in ms.
fn stream(
    runtime: &Runtime,
    stack: &Stack,
    producer: &ThreadedProducer<DefaultProducerContext>,
    load: Load,
) -> anyhow::Result<Vec<f64>> {
    let count = load.duration.as_secs() as usize * load.rate as usize;
    let orders: Vec<Order> = Generator::new(seed(), 2..=3).take(count).collect();
    let urls: Vec<String> = stack.apis.iter().map(|api| api.url()).collect();
    let (tasks, received) = mpsc::unbounded_channel();
    let topic = &stack.addresses().topic;
    thread::scope(|scope| {
        let sending = scope.spawn(move || send(producer, topic, &orders, load, &tasks));
        let taken = runtime.block_on(look(urls, received));
        match sending.join() {
            Ok(sent) => sent.and(taken),
            Err(_) => anyhow::bail!("the sending thread panicked"),
        }
    })
}

/// Returns a new seed for each call, so that each stream has other uids.
pub(crate) fn seed() -> u64 {
    std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_nanos() as u64)
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    orders: &[Order],
    load: Load,
    tasks: &mpsc::UnboundedSender<Task>,
) -> anyhow::Result<()> {
    let ahead = (ASKED_BEFORE.as_secs_f64() * f64::from(load.rate)).ceil() as usize;
    let is_looked_at = |number: usize| number.is_multiple_of(load.every as usize);
    let start = Instant::now();
    for (number, order) in orders.iter().enumerate() {
        // The schedule does not depend on how long the previous order took.
        let due = start + Duration::from_secs(1) * number as u32 / load.rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let later = number + ahead;
        if is_looked_at(later)
            && (later / load.every as usize).is_multiple_of(2)
            && let Some(order) = orders.get(later)
        {
            tasks.send(Task::Ask(order.order_uid.to_string()))?;
        }
        let json = order.to_json();
        let record = BaseRecord::to(topic)
            .key(order.order_uid.as_str())
            .payload(&json);
        if is_looked_at(number) {
            tasks.send(Task::Await(order.order_uid.to_string(), Instant::now()))?;
        }
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    Ok(())
}

async fn look(
    urls: Vec<String>,
    mut tasks: mpsc::UnboundedReceiver<Task>,
) -> anyhow::Result<Vec<f64>> {
    let client = Client::new();
    let mut looking = JoinSet::new();
    let mut number = 0;
    while let Some(task) = tasks.recv().await {
        let client = client.clone();
        match task {
            Task::Ask(uid) => {
                for url in &urls {
                    let (client, url) = (client.clone(), format!("{url}/order/{uid}"));
                    looking.spawn(async move {
                        client.status(&url).await?;
                        Ok(None)
                    });
                }
            }
            Task::Await(uid, sent) => {
                number += 1;
                // Consecutive pairs go to the same replica, because each second order was requested
                // before: each replica gets both kinds.
                let url = format!("{}/order/{uid}", urls[number / 2 % urls.len()]);
                looking.spawn(async move { visible(&client, &url, sent).await.map(Some) });
            }
        }
    }
    let mut taken = Vec::new();
    while let Some(looked) = looking.join_next().await {
        taken.extend(looked??);
    }
    Ok(taken)
}

/// Milliseconds from `sent` until `url` returns 200. Retries a 503 like a client: a replica that
/// its host delays may return it.
async fn visible(client: &Client, url: &str, sent: Instant) -> anyhow::Result<f64> {
    while sent.elapsed() < PATIENCE {
        match client.status(url).await? {
            StatusCode::OK => return Ok(sent.elapsed().as_secs_f64() * 1e3),
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => {
                tokio::time::sleep(PAUSE.max(sent.elapsed() / PART_OF_ITS_TIME)).await;
            }
            other => anyhow::bail!("{url}: {other}"),
        }
    }
    None.with_context(|| format!("{url} did not appear within {PATIENCE:?}"))
}
