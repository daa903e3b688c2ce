//! Promise 13: the memory of a worker.

use std::{collections::BTreeSet, time::Duration};

use shared::order::{Reason, sample::Generator};

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    ledger::Ledger,
    record::{Draft, large_order},
    stack::{Stack, Worker},
    wait::{until, until_within},
};

pub(super) const PROMISE: Promise = Promise {
    number: 13,
    sentence: "A worker never uses more than 256 MiB, regardless of the length of its backlog and \
               the size of the orders.",
    trials: &[
        Trial {
            name: "a_backlog_of_large_orders_stays_within_memory",
            fault: "a worker starts with a backlog of orders of almost 1 MiB each, then with a \
                    backlog of small, older versions of them",
            body: large_orders,
        },
        Trial {
            name: "partitions_assigned_during_a_pause_stay_within_memory",
            fault: "a worker that waits for the dead letter topic is assigned the partitions of a \
                    dead worker",
            body: while_paused,
        },
    ],
};

/// The promised bound.
const MAX_BYTES: usize = 256 << 20;

fn large_orders(run: &mut Run) {
    let count = run.choose(24, 400);
    let mut stack = run.stack("large").start();
    let mut ledger = Ledger::default();
    let mut bytes = 0;
    let mut small = Vec::with_capacity(count);
    for order in Generator::new(run.seed, 1000..=1000).take(count) {
        let mut first_line = order.clone();
        first_line.items.truncate(1);
        // A stale record: the newer version in Postgres is read back for Redis, for every row of a
        // batch.
        small.push(Draft::order(&first_line).with_header("replay-version", Some(b"1/0/0")));
        let draft = Draft::order(&large_order(order));
        bytes += draft.record.value.as_ref().map_or(0, Vec::len);
        stack.send(&mut ledger, &[draft]);
    }
    run.figure("orders", count);
    run.figure("size of an order", format!("{} KiB", (bytes / count) >> 10));
    finish_backlog(run, &mut stack, &ledger, count, "peak");
    stack.send(&mut ledger, &small);
    finish_backlog(run, &mut stack, &ledger, count, "peak with small versions");
}

/// Starts a worker that finishes a backlog of `count` records, and measures its memory.
fn finish_backlog(
    run: &mut Run,
    stack: &mut Stack,
    ledger: &Ledger,
    count: usize,
    figure: &'static str,
) {
    stack.start_worker();
    until_finished(&stack.workers[0], count as u64);
    stack.settle();
    let peak = stack.workers[0].process.peak_bytes();
    stack.check().postgres(ledger);
    stack.check().redis_remains(ledger);
    stack.check().dead_letters(ledger);
    run.figure(figure, format!("{} MiB", peak >> 20));
    assert!(peak < MAX_BYTES, "{peak} bytes at once");
    stack.stop_workers();
}

/// Timeout of one batch. For hundreds of small stale records an unoptimised worker reads back as
/// many large orders.
const BATCH: Duration = Duration::from_secs(5 * 60);

/// Waits in steps, because the longest backlog takes longer than the deadline of one wait.
#[track_caller]
fn until_finished(worker: &Worker, count: u64) {
    let mut seen = 0;
    while seen < count {
        seen = until_within(BATCH, "more finished records", || {
            match worker.all_messages() {
                now if now > seen => Ok(now),
                now => Err(now),
            }
        });
    }
}

const PARTITIONS: i32 = 6;
/// Each record uses up the worker's whole memory budget.
const RECORD_BYTES: usize = 4 << 20;
const RECORDS: usize = 60;
/// Far less than all records, far more than what is in flight when partitions are paused.
const MAX_GROWTH: usize = RECORDS * RECORD_BYTES / 2;
/// Memory measurements before the trial concludes that nothing more arrives. The worker polls ten
/// times a second and could read far more than the limit in this time.
const LOOKS: usize = 120;

/// Returns how often partitions were assigned to the worker.
fn assignments(worker: &Worker) -> usize {
    let log = worker.process.log();
    let assigned = log
        .lines()
        .filter(|line| line.contains("partitions assigned"));
    assigned.count()
}

/// A partition that is assigned to a paused worker must be paused, too.
fn while_paused(run: &mut Run) {
    let mut stack = run
        .stack("memory")
        .variable("WORKER_BATCH_MAX_BYTES", "1MiB")
        .workers(2)
        .start();
    until("a second worker with partitions", || {
        match assignments(&stack.workers[1]) {
            0 => Err("none"),
            _ => Ok(()),
        }
    });
    // No dead letter fits, so the first rejected record is never finished.
    let topic = stack.addresses().dead_letter_topic.clone();
    stack.broker().limit(&topic, 1);
    let drafts: Vec<Draft> = (0..RECORDS)
        .map(|index| {
            let mut draft = Draft::rejected(Reason::TooLarge, vec![b' '; RECORD_BYTES]);
            draft.record.partition = Some(index as i32 % PARTITIONS);
            draft
        })
        .collect();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts);
    for worker in &stack.workers {
        until(
            "a worker that waits for the dead letter topic",
            || match worker.admin.state_of("waiting_for") {
                waits if waits.contains("dead_letter_topic") => Ok(()),
                other => Err(other),
            },
        );
    }

    let before = assignments(&stack.workers[0]);
    // The surviving worker gets partitions that it has never paused.
    stack.workers.remove(1).process.kill();
    let worker = &stack.workers[0];
    until("another assignment", || match assignments(worker) {
        now if now > before => Ok(()),
        now => Err(now),
    });
    let (start, mut looks) = (worker.process.resident_bytes(), 0);
    until("no growth of memory", || {
        let growth = worker.process.resident_bytes().saturating_sub(start);
        assert!(growth < MAX_GROWTH, "{growth} bytes more");
        looks += 1;
        if looks > LOOKS { Ok(()) } else { Err(looks) }
    });

    stack.broker().limit(&topic, 16 << 20);
    stack.settle();
    assert_eq!(sources_of(&stack, &topic), ledger.rejected().count());
    let peak = stack.workers[0].process.peak_bytes();
    run.figure("waiting", format!("{} MiB", (RECORDS * RECORD_BYTES) >> 20));
    run.figure("peak", format!("{} MiB", peak >> 20));
}

/// Returns the number of records that have a dead letter.
///
/// # Panics
/// A dead letter has lost its value without saying so.
fn sources_of(stack: &Stack, topic: &str) -> usize {
    let mut sources = BTreeSet::new();
    for letter in stack.broker().read(topic) {
        let header = |name: &str| {
            let (_, value) = letter.headers.iter().find(|(held, _)| held == name)?;
            String::from_utf8(value.clone()?).ok()
        };
        let value = letter.value.as_deref().unwrap_or_default();
        // A worker that retried while the limit was raised may have left out the value. The dead
        // letter then says so.
        let left_out =
            || header("dlq-detail").is_some_and(|detail| detail.contains("value left out"));
        assert!(
            value == vec![b' '; RECORD_BYTES] || value.is_empty() && left_out(),
            "{} bytes",
            value.len()
        );
        sources.insert((header("dlq-partition"), header("dlq-offset")));
    }
    sources.len()
}
