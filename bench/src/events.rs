//! Measures event streams: the latency from the commit of a change until its watchers receive the
//! event, and the memory of an api with many watchers.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use clap::Args;
use e2e::Stack;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use shared::order::{Order, sample::Generator};
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};

use crate::{
    client::Client,
    copy_floor::connect,
    cpu::resident_memory,
    ingest, latency,
    part::{Figure, Goal, Part},
    summary::percentile,
};

/// Every tenth record updates a watched order. The others are new orders.
const UPDATES: usize = 10;

/// Longest wait for an event before the measurement fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Streams that are opened at a time.
const OPENED_AT_ONCE: usize = 64;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Rounds under load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds per round.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Orders per second under load.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Watchers of one order each. A round must not update more orders than that.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    watchers: u32,
    /// Watchers of all orders.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    all: u32,
}

/// An event, as its watcher received it.
struct Event {
    kind: Kind,
    uid: String,
    at: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// The document of a watched order.
    Order,
    /// A change of any order.
    Change,
}

/// Latencies of one round in ms, in ascending order.
struct Round {
    orders: Vec<f64>,
    changes: Vec<f64>,
}

impl Round {
    fn latencies(&self, kind: Kind) -> &[f64] {
        match kind {
            Kind::Order => &self.orders,
            Kind::Change => &self.changes,
        }
    }
}

/// Resident memory of the api in bytes.
struct Memory {
    before: u64,
    watched: u64,
    after: u64,
}

/// Runs the part.
///
/// # Errors
/// If a service does not respond, or an event does not arrive.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let records = options.rate as usize * options.seconds as usize;
    ensure!(
        records.div_ceil(UPDATES) <= options.watchers as usize,
        "a round updates more orders than are watched; raise --watchers or lower --seconds"
    );
    let runtime = Runtime::new()?;
    let mut stack = ingest::stack("bench-events");
    stack.start_worker();
    ingest::send(&stack, options.watchers as usize)?;
    ingest::finish(&stack)?;
    let api = stack.start_api();
    let (pid, url) = (api.process.id(), api.url());
    let uids = runtime.block_on(uids(&stack.addresses().database_url))?;
    let before = resident_memory(pid)?;
    let (sender, mut events) = mpsc::unbounded_channel();
    runtime.block_on(watch(&url, &uids, options.all, &sender))?;
    let watched = resident_memory(pid)?;
    let producer = latency::producer(&stack.addresses().brokers, 5)?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let sent = send(&producer, &stack, &uids, options)?;
        let received = runtime.block_on(receive(&mut events, records, options.all))?;
        let round = runtime.block_on(round(&stack, sent, received))?;
        eprintln!(
            "round {number}: order p50 {:.1} ms, p99 {:.1} ms; change p50 {:.1} ms, p99 {:.1} ms",
            percentile(&round.orders, 0.5),
            percentile(&round.orders, 0.99),
            percentile(&round.changes, 0.5),
            percentile(&round.changes, 0.99),
        );
        rounds.push(round);
    }
    let after = resident_memory(pid)?;
    let memory = Memory {
        before,
        watched,
        after,
    };
    Ok(part(options, &rounds, &memory))
}

fn part(options: &Options, rounds: &[Round], memory: &Memory) -> Part {
    let figure = |kind: Kind, what: &str, rank| {
        let name = format!("commit to event, {} orders/s, {what}", options.rate);
        let values = rounds
            .iter()
            .map(|round| percentile(round.latencies(kind), rank));
        Figure::new(&name, "ms", values)
    };
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let watchers = f64::from(options.watchers + options.all);
    let name = |what| format!("memory, api with {watchers} watchers, {what}");
    let each = memory.watched.saturating_sub(memory.before) as f64 / 1024.0 / watchers;
    let method = format!(
        "one worker, one api; {} watchers of one order each, {} of all orders; of the records, one \
         in {UPDATES} updates a watched order, the others are new; from the start of the \
         transaction (`updated_at`) until the client has the event; resident memory before the \
         watchers, with them, and after {} rounds of {} s",
        options.watchers, options.all, options.rounds, options.seconds
    );
    Part::new(
        "events",
        &method,
        vec![
            figure(Kind::Order, "order p50", 0.5),
            figure(Kind::Order, "order p99", 0.99).goal(Goal::AtMost(50.0)),
            figure(Kind::Change, "change p50", 0.5),
            figure(Kind::Change, "change p99", 0.99).goal(Goal::AtMost(50.0)),
            Figure::new(&name("idle"), "MiB", [mebibytes(memory.watched)]),
            Figure::new(&name("under load"), "MiB", [mebibytes(memory.after)])
                .goal(Goal::AtMost(192.0)),
            Figure::new("memory per watcher", "KiB", [each]).goal(Goal::AtMost(28.0)),
        ],
    )
}

/// The uids of all stored orders.
async fn uids(database_url: &str) -> anyhow::Result<Vec<String>> {
    let rows = connect(database_url)
        .await?
        .query("SELECT order_uid FROM orders", &[])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Opens a stream for each of `uids`, and `all` streams of all orders. Waits until each watched
/// order has arrived.
async fn watch(
    url: &str,
    uids: &[String],
    all: u32,
    events: &mpsc::UnboundedSender<Event>,
) -> anyhow::Result<()> {
    let client = Client::new();
    for _ in 0..all {
        let body = client.open(&format!("{url}/orders/events")).await?;
        tokio::spawn(read(body, None, events.clone()));
    }
    for uids in uids.chunks(OPENED_AT_ONCE) {
        let (first, mut arrived) = mpsc::unbounded_channel();
        for uid in uids {
            let body = client.open(&format!("{url}/order/{uid}/events")).await?;
            let (uid, first, events) = (uid.clone(), first.clone(), events.clone());
            tokio::spawn(read(body, Some((uid, first)), events));
        }
        for _ in uids {
            let first = timeout(PATIENCE, arrived.recv()).await;
            first.context("the document of a watched order did not arrive")?;
        }
    }
    Ok(())
}

/// Reads a stream to its end, and passes its events on. For a watched order, `watched` has its uid
/// and receives a message instead of the first event.
async fn read(
    mut body: Incoming,
    mut watched: Option<(String, mpsc::UnboundedSender<()>)>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut text = String::new();
    let mut is_first = true;
    while let Some(Ok(frame)) = body.frame().await {
        let at = SystemTime::now();
        text += &String::from_utf8_lossy(&frame.into_data().unwrap_or_default());
        while let Some(end) = text.find("\n\n") {
            let event = match &mut watched {
                Some((_, first)) if is_first && text.starts_with("event: order\n") => {
                    is_first = false;
                    // The receiver waits for it.
                    let _ = first.send(());
                    None
                }
                Some((uid, _)) => {
                    let is_order = text.starts_with("event: order\n");
                    is_order.then(|| (Kind::Order, uid.clone()))
                }
                None => changed(&text[..end]).map(|uid| (Kind::Change, uid)),
            };
            if let Some((kind, uid)) = event {
                // The measurement may be over.
                let _ = events.send(Event { kind, uid, at });
            }
            text.drain(..end + 2);
        }
    }
}

/// The uid of an `event: change`.
fn changed(event: &str) -> Option<String> {
    let data = event.strip_prefix("event: change\n")?;
    let (_, uid) = data.split_once("\"order_uid\":\"")?;
    Some(uid.split_once('"')?.0.to_owned())
}

/// Sends one round at a constant rate. Returns the uids of its records.
fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    stack: &Stack,
    watched: &[String],
    options: &Options,
) -> anyhow::Result<Vec<String>> {
    let count = options.rate as usize * options.seconds as usize;
    let orders = Generator::new(latency::seed(), 2..=3).take(count);
    let orders: Vec<Order> = orders
        .enumerate()
        .map(|(number, mut order)| {
            if number.is_multiple_of(UPDATES) {
                order.order_uid = watched[number / UPDATES].as_str().into();
            }
            order
        })
        .collect();
    let start = Instant::now();
    for (number, order) in orders.iter().enumerate() {
        let due = start + Duration::from_secs(1) * number as u32 / options.rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let json = order.to_json();
        let record = BaseRecord::to(&stack.addresses().topic)
            .key(order.order_uid.as_str())
            .payload(&json);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    Ok(orders
        .iter()
        .map(|order| order.order_uid.to_string())
        .collect())
}

/// Waits for the events of a round of `records`.
async fn receive(
    events: &mut mpsc::UnboundedReceiver<Event>,
    records: usize,
    all: u32,
) -> anyhow::Result<Vec<Event>> {
    let expected = records.div_ceil(UPDATES) + records * all as usize;
    let mut received = Vec::with_capacity(expected);
    while received.len() < expected {
        let event = timeout(PATIENCE, events.recv()).await;
        let event = event.with_context(|| {
            format!(
                "{} of {expected} events within {PATIENCE:?}",
                received.len()
            )
        })?;
        received.extend(event);
    }
    Ok(received)
}

/// Compares the time of each event with that of its transaction.
async fn round(stack: &Stack, sent: Vec<String>, events: Vec<Event>) -> anyhow::Result<Round> {
    let rows = connect(&stack.addresses().database_url)
        .await?
        .query(
            "SELECT order_uid, updated_at FROM orders WHERE order_uid = ANY($1)",
            &[&sent],
        )
        .await?;
    let committed: HashMap<String, SystemTime> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let latencies = |kind: Kind| {
        let of_kind = events.iter().filter(|event| event.kind == kind);
        let latency = |event: &Event| {
            let since = committed
                .get(&event.uid)
                .map(|begun| event.at.duration_since(*begun));
            let since = since.with_context(|| format!("{} is not stored", event.uid))?;
            // The clocks of Postgres and of this process are one clock.
            Ok(since.unwrap_or_default().as_secs_f64() * 1e3)
        };
        let mut latencies = of_kind.map(latency).collect::<anyhow::Result<Vec<f64>>>()?;
        latencies.sort_by(f64::total_cmp);
        anyhow::Ok(latencies)
    };
    Ok(Round {
        orders: latencies(Kind::Order)?,
        changes: latencies(Kind::Change)?,
    })
}
