//! Promise 15: erased orders, replayed dead letters, and shutdown.

use rand::{Rng, rngs::StdRng, seq::SliceRandom};
use shared::order::{Order, Version, sample::Generator};

use super::{
    rejection::{accept, reject, rejected},
    run::Run,
    shutdown,
    trial::{Promise, Trial},
};
use crate::{
    ledger::Ledger,
    postgres::Row,
    readers::now_us,
    record::{Draft, rejected_samples},
    stack::Stack,
    wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 15,
    sentence: "An erased order stays erased, a replayed dead letter never overwrites a newer \
               version, and a process ends within 25 s of SIGTERM.",
    trials: &[
        Trial {
            name: "an_erased_order_stays_erased_after_redelivery",
            fault: "two workers read orders, changes and erasures, shuffled across all \
                    partitions, and then all of them again",
            body: stays_erased,
        },
        Trial {
            name: "a_replayed_dead_letter_never_overwrites_a_newer_version",
            fault: "dead letters are replayed after their order has changed",
            body: replayed,
        },
        Trial {
            name: "a_process_ends_in_time_when_a_service_is_frozen",
            fault: "under load, Kafka, Postgres or Redis is frozen, and worker and api receive \
                    SIGTERM",
            body: shutdown::frozen,
        },
    ],
};

const PARTITIONS: i32 = 6;

/// The versions come from producers' clocks. If the erasure has the newest timestamp, the order is
/// erased, in any order of arrival.
fn stays_erased(run: &mut Run) {
    let count = run.choose(200, 10_000);
    let mut rng = run.rng();
    let mut stack = run
        .stack("erasure")
        .producers_timestamps()
        .workers(2)
        .apis(2)
        .start();
    let mut ledger = Ledger::default();
    let drafts = histories(run.seed, count, &mut rng);
    stack.send(&mut ledger, &drafts);
    stack.settle();
    stack.check().tiers(&ledger);

    // As an operator does.
    let uid = ledger.some_uid();
    stack
        .command("producer", &["erase", "--yes", &uid])
        .succeeded();
    stack.await_status(&uid, 410);
    let mut erasure = Draft::erasure(&uid);
    erasure.record.timestamp_ms = Some(now_us() / 1000);
    stack.send(&mut ledger, &[erasure]);
    stack.settle();
    stack.check().tiers(&ledger);

    // A group that has read nothing.
    stack.stop_workers();
    stack.use_new_group();
    stack.start_worker();
    stack.start_worker();
    stack.settle();
    stack.check().tiers(&ledger);
    for api in &stack.apis {
        stack.check().api(&ledger, &api.url(), "local");
        stack.check().api_in_postgres(&ledger, &api.url());
    }
    let orders = ledger.orders();
    let erased = orders.values().filter(|state| state.json.is_none());
    run.figure("orders", orders.len());
    run.figure("erased", erased.count());
}

/// Returns the versions of `count` orders, shuffled. The producer's timestamp decides which of them
/// is the newest.
fn histories(seed: u64, count: usize, rng: &mut StdRng) -> Vec<Draft> {
    let mut time = now_us() / 1000 - 1_000_000;
    let mut others = Generator::new(seed + 1, 1..=3);
    let mut drafts = Vec::new();
    for order in Generator::new(seed, 1..=3).take(count) {
        let mut changed = others.next().unwrap();
        changed.order_uid.clone_from(&order.order_uid);
        let erasure = Draft::erasure(&order.order_uid);
        let mut history = vec![Draft::order(&order), Draft::order(&changed)];
        // Most orders stay erased, some were never erased, and some come back.
        match rng.random_range(0..10) {
            0..7 => history.push(erasure),
            7 | 8 => history.insert(1, erasure),
            _ => {}
        }
        for mut draft in history {
            time += 1;
            draft.record.timestamp_ms = Some(time);
            draft.record.partition = Some(rng.random_range(0..PARTITIONS));
            drafts.push(draft);
        }
    }
    drafts.shuffle(rng);
    drafts
}

/// Returns the number of dead letters.
#[track_caller]
fn letters(stack: &Stack) -> usize {
    let topic = &stack.addresses().dead_letter_topic;
    stack.broker().read(topic).len()
}

#[track_caller]
fn assert_amount(row: Row, order: &Order) {
    let amount = row.document.expect("not erased")["payment"]["amount"].clone();
    assert_eq!(amount, order.payment.amount);
}

fn replayed(run: &mut Run) {
    let stack = run.stack("letters").workers(1).apis(1).start();
    let database = stack.database();
    reject(&database);
    let mut orders = Generator::new(run.seed, 1..=3);
    let mut named = |uid: &str| {
        let mut order = orders.next().unwrap();
        order.order_uid = uid.into();
        order
    };
    let (first, first_draft) = rejected(named("first"));
    let (second, second_draft) = rejected(named("second"));
    let newer = named("second");
    let neighbours: Vec<Draft> = orders.take(60).map(|order| Draft::order(&order)).collect();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &neighbours[..30]);
    stack.send(&mut ledger, &[first_draft, second_draft]);
    stack.send(&mut ledger, &neighbours[30..]);
    stack.send(&mut ledger, &rejected_samples(run.seed));
    stack.settle();
    stack.check().tiers(&ledger);
    assert_eq!(stack.workers[0].messages("failed"), 2);
    stack.apis[0].order("first").problem(404);

    // A newer record supersedes the dead letter.
    stack.send(&mut ledger, &[Draft::order(&newer)]);
    stack.settle();

    let selection = ["--reason", "rejected_by_database"];
    assert_listed(&stack, &selection);

    let before = letters(&stack);
    let replay = [&["dead-letters", "replay"], &selection[..]].concat();
    let (_, sent) = stack.progress();
    stack
        .command("worker", &[&replay[..], &["--dry-run"]].concat())
        .succeeded();
    assert_eq!(stack.progress().1, sent, "a dry run sends nothing");

    accept(&database);
    let replay = [&replay[..], &["--yes"]].concat();
    stack.command("worker", &replay).succeeded();
    assert_eq!(stack.progress().1, sent + 2);
    stack.settle();
    assert_eq!(letters(&stack), before, "no record was rejected again");
    let version = assert_replayed(&stack, &ledger, &first, &newer);

    let old = [("first", &first), ("second", &second)];
    replay_as_new(&stack, &[&replay[..], &["--as-new"]].concat(), old, version);
    assert_eq!(letters(&stack), before);
}

/// Asserts that the first order is stored with its original version, and that the second lost to a
/// newer record. Returns the version of the second.
fn assert_replayed(stack: &Stack, ledger: &Ledger, first: &Order, newer: &Order) -> Version {
    let database = stack.database();
    let mut records = ledger.records().iter();
    let original = records.find(|sent| sent.record.key.as_deref() == Some(b"first"));
    let row = database.order("first");
    assert_eq!(row.version, original.unwrap().version());
    assert_amount(row, first);
    let version = ledger.orders()["second"].version;
    let row = database.order("second");
    assert_eq!(
        row.version, version,
        "a dead letter overwrote a newer version"
    );
    assert_amount(row, newer);
    stack.await_status("first", 200);
    assert_eq!(stack.apis[0].order("first").body, first.to_json());
    assert_eq!(stack.apis[0].order("second").body, newer.to_json());
    version
}

/// Asserts that the list of dead letters is complete, and that the selected ones name their order
/// and their SQLSTATE.
#[track_caller]
fn assert_listed(stack: &Stack, selection: &[&str]) {
    let all = stack
        .command("worker", &["dead-letters", "list"])
        .succeeded();
    assert_eq!(all.lines().skip(1).count(), letters(stack), "{all}");
    let list = [&["dead-letters", "list"], selection].concat();
    let list = stack.command("worker", &list).succeeded();
    assert_eq!(list.lines().skip(1).count(), 2, "{list}");
    for uid in ["first", "second"] {
        let line = list.lines().find(|line| line.contains(uid));
        let line = line.unwrap_or_else(|| panic!("{uid} is not listed: {list}"));
        assert!(
            line.contains("23514") && line.contains("rejected_by_database"),
            "{line}"
        );
    }
}

/// Replays dead letters as if they were sent now, so that the old record wins.
fn replay_as_new(stack: &Stack, command: &[&str], old: [(&str, &Order); 2], version: Version) {
    stack.command("worker", command).succeeded();
    stack.settle();
    for (uid, order) in old {
        let row = stack.database().order(uid);
        assert!(row.version > version, "{uid}");
        assert_amount(row, order);
        until("the old record in the api", || {
            match stack.apis[0].order(uid) {
                answer if answer.body == order.to_json() => Ok(()),
                answer => Err(answer.text()),
            }
        });
    }
}
