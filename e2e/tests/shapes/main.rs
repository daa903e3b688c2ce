//! Two builds side by side, as during a rolling upgrade to a release that adds the field
//! `gift_note` to the order. `build_next_release` in `scripts/lib/programs.sh` makes the second
//! build.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;

use std::collections::{BTreeMap, BTreeSet};

use e2e::{Build, Draft, Ledger, Stack, entries, until};
use serde_json::{Value, json};
use shared::order::{Order, sample::Generator};

use answers::{Answers, Readers, note};

/// Partitions of the topic.
const PARTITIONS: i32 = 6;

/// Returns a record of `order` with a note. The current build ignores the note as an unknown field.
fn with_note(order: &Order, note: &str) -> Draft {
    let mut document: Value = serde_json::from_slice(&order.to_json()).unwrap();
    document["gift_note"] = json!(note);
    Draft::valid(document.to_string().into_bytes())
}

/// Counts the orders whose newest version a worker of this shape stored.
fn stored_in_shape(stack: &Stack, representation: u8) -> i64 {
    stack.database().number(&format!(
        "SELECT count(*) FROM orders WHERE representation = {representation}"
    ))
}

/// Upgrades the schema. Programs that start from now on are of the next release.
fn begin_upgrade(stack: &mut Stack) {
    let worker = Build::Next.program("worker");
    stack.command(&worker, &["migrate"]).succeeded();
    stack.use_build(Build::Next);
}

/// Stops the workers, and starts one of `build`.
fn hand_over(stack: &mut Stack, build: Build) {
    stack.stop_workers();
    stack.use_build(build);
    stack.start_worker();
}

/// Sends orders with notes until an old and a new worker, which run side by side, have both stored
/// some. Returns how many orders have a note, because the new worker stored them.
fn store_with_both_workers(
    stack: &Stack,
    ledger: &mut Ledger,
    orders: &mut impl Iterator<Item = Order>,
) -> usize {
    until("orders stored by each of the two workers", || {
        let drafts: Vec<Draft> = (0..PARTITIONS)
            .zip(&mut *orders)
            .map(|(partition, order)| {
                let mut draft = with_note(&order, "during");
                draft.record.partition = Some(partition);
                draft
            })
            .collect();
        let before = stored_in_shape(stack, 1);
        stack.send(ledger, &drafts);
        stack.settle();
        let (by_old, by_new) = (
            stored_in_shape(stack, 1) - before,
            stored_in_shape(stack, 2),
        );
        match (by_old, by_new) {
            (1.., 1..) => Ok(by_new as usize),
            counts => Err(format!("{counts:?} in the old and the new shape")),
        }
    })
}

/// Asserts that the replica at this place returns each order in the new shape only.
#[track_caller]
fn assert_new_shape(stack: &Stack, api: usize, uids: &[String], notes: usize) -> Answers {
    let mut answers = Answers::default();
    answers.read(&stack.apis[api], uids);
    assert_eq!(answers.shapes(), BTreeSet::from([2]));
    assert_eq!(answers.notes(), notes);
    answers
}

fn uids(ledger: &Ledger) -> Vec<String> {
    ledger.orders().into_keys().collect()
}

#[test]
fn after_an_upgrade_no_tier_returns_or_confirms_the_old_shape() {
    let mut stack = Stack::builder("shapes").workers(1).apis(1).start();
    let mut ledger = Ledger::default();
    let mut orders = Generator::new(401, 1..=3);
    let some = orders.by_ref().take(20);
    let drafts: Vec<Draft> = some.map(|order| with_note(&order, "before")).collect();
    stack.send(&mut ledger, &drafts);
    stack.settle();
    stack.await_answers(&ledger);
    let mut answers = Answers::default();
    answers.read(&stack.apis[0], &uids(&ledger));
    assert_eq!(answers.shapes(), BTreeSet::from([1]));

    // The new programs run beside the old ones. Without a warm-up, the new api reads Redis first.
    begin_upgrade(&mut stack);
    stack.start_worker();
    stack.start_api_with(&[("CACHE_WARMUP", "0")]);
    answers.add(assert_new_shape(&stack, 1, &uids(&ledger), 0));
    let notes = store_with_both_workers(&stack, &mut ledger, &mut orders);
    let uids = uids(&ledger);
    answers.read(&stack.apis[0], &uids);
    answers.add(assert_new_shape(&stack, 1, &uids, notes));

    // The last old program ends.
    stack.stop_oldest_workers(1);
    stack.apis.remove(0).process.terminate();
    // Without a local cache, a replica reads Redis.
    stack.start_api_with(&[("LOCAL_CACHE_MAX_BYTES", "0")]);
    for api in 0..2 {
        answers.add(assert_new_shape(&stack, api, &uids, notes));
        answers.assert_old_copies_are_replaced(&stack.apis[api]);
    }
    for uid in &uids {
        stack.apis[1].await_source(uid, "redis");
    }
    let held = entries(&stack.addresses().redis_url).unwrap();
    assert_eq!(held.len(), uids.len());
    for (uid, entry) in held {
        let version = String::from_utf8_lossy(&entry.fields["version"]).into_owned();
        assert!(version.ends_with("-2"), "{uid}: {version} in Redis");
    }
}

/// Orders, and the note that belongs to each of their versions.
struct Notes {
    orders: Vec<Order>,
    ledger: Ledger,
    /// The notes by the text of the version; none where an old worker stored it.
    by_version: BTreeMap<String, Option<&'static str>>,
}

impl Notes {
    /// Sends a new version of each order with this note.
    fn send(&mut self, stack: &Stack, note: &'static str, stored: Option<&'static str>) {
        let with_note = |order| with_note(order, note);
        let drafts: Vec<Draft> = self.orders.iter().map(with_note).collect();
        stack.send(&mut self.ledger, &drafts);
        stack.settle();
        for state in self.ledger.orders().into_values() {
            self.by_version.insert(state.version.to_string(), stored);
        }
    }

    /// Asserts that no answer has the note of another version.
    #[track_caller]
    fn check(&self, answers: &Answers) {
        for (document, body) in answers.documents() {
            let version = document.version.version.to_string();
            let expected = match document.version.representation {
                // The old api does not know the field.
                1 => None,
                _ => self.by_version[&version],
            };
            assert_eq!(note(body).as_deref(), expected, "{document:?}");
        }
    }
}

#[test]
fn an_older_worker_leaves_no_field_of_an_earlier_version() {
    let mut stack = Stack::builder("older-worker").apis(1).start();
    begin_upgrade(&mut stack);
    stack.start_worker();
    stack.start_api();
    let mut notes = Notes {
        orders: Generator::new(402, 1..=3).take(10).collect(),
        ledger: Ledger::default(),
        by_version: BTreeMap::new(),
    };
    notes.send(&stack, "first", Some("first"));
    let uids = uids(&notes.ledger);
    let mut answers = Answers::default();
    let read = |stack: &Stack, answers: &mut Answers| {
        stack.apis.iter().for_each(|api| answers.read(api, &uids));
    };
    read(&stack, &mut answers);
    assert!(answers.notes() > 0);

    // The old worker replaces the rows, but does not know the column of the note.
    hand_over(&mut stack, Build::Current);
    let readers = Readers::start(&stack, &uids);
    notes.send(&stack, "second", None);
    read(&stack, &mut answers);
    let left = "SELECT count(*) FROM orders WHERE representation = 1 AND gift_note = 'first'";
    let left = stack.database().number(left);
    assert_eq!(left as usize, uids.len(), "rows with the earlier note");
    // An erasure by the old worker, and a revival.
    stack.send(&mut notes.ledger, &[Draft::erasure(&uids[0])]);
    stack.settle();
    stack.await_status(&uids[0], 410);
    notes.send(&stack, "revived", None);

    hand_over(&mut stack, Build::Next);
    notes.send(&stack, "third", Some("third"));
    read(&stack, &mut answers);
    answers.add(readers.stop());
    notes.check(&answers);
    assert_eq!(stored_in_shape(&stack, 2) as usize, uids.len());
}
