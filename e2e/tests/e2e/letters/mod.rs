//! `worker dead-letters`: the commands that read and send dead letters back.

mod editing;
mod reading;
mod replaying;

use e2e::{Draft, Ledger, Record, Stack};
use serde_json::Value;
use shared::order::{Reason, sample::Generator};

/// A dead letter in the worker's format, whose replay goes to `topic`.
fn letter(topic: &str, partition: i32, offset: usize) -> Record {
    let offset = offset.to_string();
    let headers = [
        ("dlq-reason", "malformed_json"),
        ("dlq-detail", "not JSON, line 1 column 1"),
        ("dlq-topic", topic),
        ("dlq-partition", "0"),
        ("dlq-offset", &offset),
        ("dlq-timestamp", "1700000000000"),
        ("dlq-worker", "e2e"),
    ];
    let header = |(name, value): (&str, &str)| (name.into(), Some(value.into()));
    Record {
        value: Some(b"{".to_vec()),
        headers: headers.map(header).to_vec(),
        partition: Some(partition),
        ..Record::default()
    }
}

#[track_caller]
fn send_letters(stack: &Stack, letters: &[Record]) {
    stack
        .broker()
        .send(&stack.addresses().dead_letter_topic, letters);
}

/// Runs `worker dead-letters` and returns what it printed.
#[track_caller]
fn letters(stack: &Stack, arguments: &[&str]) -> String {
    stack
        .command("worker", &[&["dead-letters"], arguments].concat())
        .succeeded()
}

/// As [`letters`], for a command that must fail.
#[track_caller]
fn rejected(stack: &Stack, arguments: &[&str]) -> String {
    stack
        .command("worker", &[&["dead-letters"], arguments].concat())
        .failed()
}

/// Returns the objects that `worker dead-letters … --json` prints.
#[track_caller]
fn json(stack: &Stack, arguments: &[&str]) -> Vec<Value> {
    let printed = letters(stack, &[arguments, &["--json"]].concat());
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Returns the orders of a list.
fn uids(rows: &[Value]) -> Vec<&str> {
    let mut uids: Vec<&str> = rows.iter().filter_map(|row| row["uid"].as_str()).collect();
    uids.sort_unstable();
    uids
}

/// Sends two orders with a bad postal code, and two values that are no orders.
fn send_rejected(stack: &Stack) {
    let orders = Generator::new(31, 1..=1).zip(["one", "two"]);
    let bad_zip = orders.map(|(mut order, uid)| {
        order.order_uid = uid.into();
        order.delivery.zip = "no_zip!".into();
        Draft::rejected(Reason::InvalidOrder, order.to_json())
            .with_key(Some(uid.as_bytes()))
            .with_header("note", Some(b"a\x1b[2Jb"))
    });
    let mut drafts: Vec<Draft> = bad_zip.collect();
    drafts.push(Draft::rejected(
        Reason::MalformedJson,
        b"{\x1b[2J\xff".to_vec(),
    ));
    drafts.push(Draft::rejected(Reason::TooLarge, vec![b' '; 2 << 20]));
    stack.send(&mut Ledger::default(), &drafts);
    stack.settle();
}

/// Returns which orders of the list were replayed.
fn replayed(stack: &Stack) -> Vec<String> {
    let mut rows = json(stack, &["list"]);
    rows.retain(|row| row["replayed_at"].is_string());
    uids(&rows).into_iter().map(str::to_owned).collect()
}
