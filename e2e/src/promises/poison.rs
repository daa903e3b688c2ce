//! Promise 7: records that can never be stored.

use std::time::Duration;

use rand::{Rng, seq::SliceRandom};
use shared::order::{Reason, sample::Generator};

use super::{
    rejection::{accept, reject, reject_all, rejected},
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    ledger::Ledger,
    proxy::Proxy,
    readers::now_us,
    record::{Draft, Record, rejected_samples},
    stack::Stack,
    wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 7,
    sentence: "A record that can never be stored costs only itself: it goes to the dead letter \
               topic with its bytes, key and headers. A database that rejects more than 5 % of \
               the records pauses the worker instead of emptying the topic.",
    trials: &[
        Trial {
            name: "poison_records_do_not_block_and_are_dead_lettered",
            fault: "a tenth of all records is poison of every kind: empty, null, too large, \
                    nested too deep, not UTF-8, U+0000, NaN, 400 digits, duplicated keys, arrays \
                    instead of objects, gibberish, a timestamp a year ahead, rejected by the \
                    database",
            body: a_tenth,
        },
        Trial {
            name: "a_rejected_row_costs_only_itself",
            fault: "one of 500 records in a batch violates a CHECK constraint that no rule covers",
            body: one_of_a_batch,
        },
        Trial {
            name: "a_database_that_rejects_everything_does_not_empty_the_topic",
            fault: "the database rejects every row, and the worker is restarted meanwhile",
            body: everything,
        },
        Trial {
            name: "a_restarted_worker_starts_paused_after_too_many_rejections",
            fault: "a worker starts when the newest dead letters are rejections by the database",
            body: remembered,
        },
    ],
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn a_tenth(run: &mut Run) {
    let count = run.choose(1500, 20_000);
    let mut rng = run.rng();
    // Only producers' clocks can be a year ahead.
    let mut stack = run
        .stack("poison")
        .producers_timestamps()
        .workers(2)
        .apis(1)
        .start();
    reject(&stack.database());
    let mut orders = Generator::new(run.seed, 1..=3);
    let breakers = orders
        .by_ref()
        .take(count / 100)
        .map(|order| rejected(order).1);
    let mut drafts: Vec<Draft> = breakers.collect();
    let ahead = now_us() / 1000 + YEAR.as_millis() as i64;
    drafts.extend(orders.by_ref().take(count / 100).map(|order| {
        let mut draft = Draft::order(&order).but_rejected(Reason::FutureTimestamp);
        draft.record.timestamp_ms = Some(ahead);
        draft
    }));
    let mut seed = run.seed;
    while drafts.len() < count / 10 {
        seed = seed.wrapping_add(100);
        drafts.extend(rejected_samples(seed));
    }
    let poison = drafts.len();
    drafts.extend(
        orders
            .take(count - count / 10)
            .map(|order| Draft::order(&order)),
    );
    drafts.shuffle(&mut rng);
    let mut ledger = Ledger::default();
    for chunk in drafts.chunks(1000) {
        stack.send(&mut ledger, chunk);
    }
    stack.settle();
    stack.check().tiers(&ledger);
    stack.check().api(&ledger, &stack.apis[0].url(), "local");
    for worker in &mut stack.workers {
        assert_eq!(worker.process.ended(), None);
    }
    run.figure("records", drafts.len());
    run.figure("poison", poison);
    run.figure("dead letters", ledger.rejected().count());
}

fn one_of_a_batch(run: &mut Run) {
    const BATCH: usize = 500;
    let mut stack = run
        .stack("alone")
        .variable("WORKER_BATCH_LINGER", "30s")
        .start();
    reject(&stack.database());
    let proxy = Proxy::to(&stack.addresses().database_url);
    let url = proxy.url(&stack.addresses().database_url);
    stack.start_worker_with(&[("DATABASE_URL", &url), ("DATABASE_TIMEOUT", "30s")]);
    let mut ledger = Ledger::default();
    let mut orders = Generator::new(run.seed, 1..=3);
    // An idle worker writes the first record alone. While it waits for the answer to COMMIT, it
    // fills the next batch.
    proxy.hold_commits();
    stack.send(&mut ledger, &[Draft::order(&orders.next().unwrap())]);
    stack.await_orders(1);
    let row = run.rng().random_range(0..BATCH);
    let drafts: Vec<Draft> = orders
        .take(BATCH)
        .enumerate()
        .map(|(index, order)| {
            let mut draft = match index == row {
                true => rejected(order).1,
                false => Draft::order(&order),
            };
            draft.record.partition = Some(0);
            draft
        })
        .collect();
    stack.send(&mut ledger, &drafts);
    let worker = &stack.workers[0];
    until("a second batch", || {
        match worker.admin.metric("worker_batch_size_count", "") {
            2 => Ok(()),
            batches => Err(batches),
        }
    });
    let records = worker.admin.metric("worker_batch_size_sum", "");
    assert_eq!(records, 1 + BATCH as u64, "records in two batches");
    proxy.restore();
    stack.settle();
    assert_eq!(worker.messages("failed"), 1);
    stack.check().tiers(&ledger);
    run.figure("rows in the batch", BATCH);
    run.figure("dead letters", ledger.rejected().count());
}

/// Greatest number of dead letters. The breaker opens at the hundredth rejected row in a row. A
/// restarted worker starts with an open breaker if it finds ten rejected rows among the newest dead
/// letters. Dead letters are written batch by batch, so an earlier worker may leave a few of them,
/// too few to open the breaker of the next one.
const MAX_REJECTIONS: usize = 100 + DECISIVE;

fn letters(stack: &Stack) -> usize {
    let topic = &stack.addresses().dead_letter_topic;
    let ends = stack.broker().watermarks(topic).into_values();
    ends.map(|(low, high)| (high - low) as usize).sum()
}

#[track_caller]
fn await_breaker(stack: &Stack) {
    until("a worker that waits", || {
        match stack.workers[0].admin.try_state_of("waiting_for") {
            Some(waits) if waits.contains("breaker") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// If the database rejects everything, the records are hardly the cause. The worker stops and waits
/// instead of moving the topic into the dead letter topic. It continues by itself.
fn everything(run: &mut Run) {
    let restarts = run.choose(1, 5);
    let mut stack = run.stack("breaker").workers(1).start();
    let database = stack.database();
    reject_all(&database);
    let mut ledger = Ledger::default();
    let drafts: Vec<Draft> = Generator::new(run.seed, 1..=2)
        .take(run.choose(400, 5000))
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &drafts);
    await_breaker(&stack);
    assert_eq!(stack.workers[0].admin.get("/readyz").status, 503);
    assert_eq!(stack.workers[0].admin.get("/livez").status, 200);
    assert!(letters(&stack) <= MAX_REJECTIONS);
    for _ in 0..restarts {
        stack.stop_workers();
        stack.launch_worker(&[]);
        await_breaker(&stack);
        assert!(
            letters(&stack) <= MAX_REJECTIONS,
            "a restart is no new start"
        );
    }

    accept(&database);
    if !run.is_full() {
        // A worker that has just started probes at once. The next probe follows up to half a minute
        // later.
        stack.stop_workers();
        stack.start_worker();
    }
    stack.settle();
    let rejected = letters(&stack);
    assert!(rejected <= MAX_REJECTIONS, "{rejected} dead letters");
    assert_eq!(database.count(), drafts.len() - rejected);
    assert_eq!(stack.workers[0].admin.get("/readyz").status, 200);
    // Nothing is lost permanently.
    let replay = ["dead-letters", "replay", "--all", "--yes"];
    stack.command("worker", &replay).succeeded();
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    run.figure("records", drafts.len());
    run.figure("restarts", restarts);
    run.figure("dead letters", rejected);
}

/// Rejected rows among the newest dead letters of a partition that make the breaker start open.
const DECISIVE: usize = 10;
/// The number of newest dead letters of a partition that count.
const LATELY: usize = 200;

/// A restarted worker starts with an open breaker. Otherwise restarts, which an operator may try on
/// a worker that is not ready, would empty the topic into the dead letters in steps.
fn remembered(run: &mut Run) {
    assert!(starts_open(run, DECISIVE, LATELY - DECISIVE));
    assert!(!starts_open(run, DECISIVE - 1, 0), "too few");
    assert!(!starts_open(run, DECISIVE, LATELY), "too long ago");
}

/// A dead letter in the worker's format.
fn letter(reason: &str) -> Record {
    let headers = [
        ("dlq-reason", reason),
        ("dlq-detail", "23514"),
        ("dlq-topic", "orders"),
        ("dlq-partition", "0"),
        ("dlq-offset", "0"),
        ("dlq-timestamp", "0"),
        ("dlq-worker", "e2e"),
    ];
    let header = |(name, value): (&str, &str)| (name.into(), Some(value.into()));
    Record {
        value: Some(b"{}".to_vec()),
        headers: headers.map(header).to_vec(),
        partition: Some(0),
        ..Record::default()
    }
}

/// Starts a worker behind this many dead letters of rejected rows, followed by other dead letters,
/// and sends it a row that the database rejects. Returns whether the breaker starts open, in which
/// case the row is not dead-lettered.
#[track_caller]
fn starts_open(run: &Run, rejections: usize, others: usize) -> bool {
    let mut stack = run.stack("restart").start();
    let found = [
        vec![letter("rejected_by_database"); rejections],
        vec![letter("malformed_json"); others],
    ]
    .concat();
    let topic = &stack.addresses().dead_letter_topic;
    stack.broker().send(topic, &found);
    reject_all(&stack.database());
    let order = Generator::new(run.seed, 1..=1).next().unwrap();
    stack.send(&mut Ledger::default(), &[Draft::order(&order)]);
    stack.launch_worker(&[]);
    until("a rejected or delayed row", || {
        if letters(&stack) > found.len() {
            return Ok(false);
        }
        match stack.workers[0].admin.try_state_of("waiting_for") {
            Some(waits) if waits.contains("breaker") => Ok(true),
            other => Err(format!("{other:?}")),
        }
    })
}
