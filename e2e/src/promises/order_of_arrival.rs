//! Promise 9: repeated records, in any order.

use std::{
    iter,
    time::{SystemTime, UNIX_EPOCH},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use shared::order::{
    Reason,
    sample::{Defect, Generator},
};

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    ledger::Ledger,
    record::{Draft, rejected_samples, valid_samples},
    redis::entries,
};

pub(super) const PROMISE: Promise = Promise {
    number: 9,
    sentence: "Each order ends in its greatest version, in any order of arrival and with any \
               repeats.",
    trials: &[
        Trial {
            name: "the_greatest_version_wins_in_any_order_of_arrival",
            fault: "every record arrives 1 to 5 times, shuffled across partitions and batches",
            body: shuffled,
        },
        Trial {
            name: "a_replay_from_the_beginning_changes_nothing",
            fault: "a new consumer group reads all records again",
            body: replayed,
        },
    ],
};

const PARTITIONS: i32 = 6;

/// Returns orders, each followed by changes, repetitions and erasures, in the order in which they
/// are sent.
fn history(seed: u64, orders: usize) -> Vec<Draft> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut others = Generator::new(seed + 1, 1..=6);
    let mut drafts = Vec::new();
    for order in Generator::new(seed, 1..=4).take(orders) {
        drafts.push(Draft::order(&order));
        for _ in 0..rng.random_range(0..4) {
            let mut changed = others.next().expect("the generator has no end");
            changed.order_uid.clone_from(&order.order_uid);
            drafts.push(match rng.random_range(0..5) {
                0 => Draft::erasure(&order.order_uid),
                1 => Draft::order(&order),
                _ => Draft::order(&changed),
            });
        }
    }
    drafts
}

/// The version comes from producers' clocks or from a header, so neither arrival nor partition
/// decides.
fn shuffled(run: &mut Run) {
    let orders = run.choose(200, 5000);
    let stack = run
        .stack("order")
        .producers_timestamps()
        .variable("WORKER_BATCH_SIZE", "25")
        .workers(2)
        .apis(1)
        .start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_millis() as i64;
    let mut rng = run.rng();
    let mut drafts = Vec::new();
    for (index, mut draft) in (0..).zip(history(run.seed, orders)) {
        // Some with the same timestamp, so that offset and partition decide.
        draft.record.timestamp_ms = Some(now - 1_000_000 + index / 3);
        if rng.random_bool(0.5) {
            // All copies have the same version.
            let version = format!("{}/{index}/0", now - 1_000_000 + index / 3);
            draft = draft.with_header("replay-version", Some(version.as_bytes()));
        }
        let copies = rng.random_range(1..=5);
        drafts.extend(iter::repeat_n(draft, copies));
    }
    drafts.extend(early_and_late(run.seed, now));
    for draft in &mut drafts {
        draft.record.partition = Some(rng.random_range(0..PARTITIONS));
    }
    drafts.shuffle(&mut rng);
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts);
    stack.settle();
    stack.check().tiers(&ledger);
    stack.check().api(&ledger, &stack.apis[0].url(), "local");
    run.figure("records", drafts.len());
    run.figure("orders", ledger.orders().len());
    run.figure("not in the greatest version", 0);
}

/// Records with timestamps ahead of the clock. The worker accepts some minutes. Beyond that it
/// checks the timestamp before the value.
fn early_and_late(seed: u64, now: i64) -> [Draft; 3] {
    let mut orders = Generator::new(!seed, 1..=1);
    let mut order = || orders.next().expect("the generator has no end");
    let late = || Reason::FutureTimestamp;
    let drafts = [
        (4, Draft::order(&order())),
        // Still too far ahead when a busy machine reads it. The broker itself rejects more than an
        // hour.
        (30, Draft::order(&order()).but_rejected(late())),
        (45, Draft::rejected(late(), Defect::Phone.apply(&order()))),
    ];
    drafts.map(|(minutes, mut draft)| {
        draft.record.timestamp_ms = Some(now + minutes * 60_000);
        draft
    })
}

fn replayed(run: &mut Run) {
    let mut stack = run.stack("replay").workers(2).apis(1).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &history(run.seed, run.choose(200, 5000)));
    stack.send(&mut ledger, &valid_samples(run.seed));
    stack.send(&mut ledger, &rejected_samples(run.seed));
    stack.settle();
    stack.check().tiers(&ledger);
    let rows = stack.database().orders();
    let cached = entries(&stack.addresses().redis_url).unwrap();

    stack.stop_workers();
    stack.use_new_group();
    // Only one worker: a second one could take over partitions before all of their records are
    // finished.
    stack.start_worker();
    stack.settle();
    let outcome = |outcome| stack.workers[0].messages(outcome) as usize;
    let rejected = ledger.rejected().count();
    assert_eq!(outcome("stale"), ledger.records().len() - rejected);
    assert_eq!(outcome("invalid"), rejected);
    assert_eq!(outcome("stored") + outcome("erased"), 0);

    // The comparison includes ids, versions and update times.
    assert!(stack.database().orders() == rows, "a row has changed");
    stack.check().dead_letters_at_least_once(&ledger);
    let again = entries(&stack.addresses().redis_url).unwrap();
    assert_eq!(cached.len(), again.len());
    for (uid, entry) in &again {
        assert_eq!(entry.fields, cached[uid].fields, "{uid}");
        assert!(
            entry.ttl_ms <= cached[uid].ttl_ms,
            "{uid} was written again"
        );
    }
    stack.check().api(&ledger, &stack.apis[0].url(), "local");
    stack.check().api_in_postgres(&ledger, &stack.apis[0].url());
    run.figure("records", ledger.records().len());
    run.figure("rows changed", 0);
}
