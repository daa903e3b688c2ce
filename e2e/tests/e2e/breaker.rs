//! What a worker makes of the dead letters that it finds at its start.

use e2e::{Draft, Ledger, Record, Stack, until};
use shared::order::sample::Generator;

/// The breaker starts open with so many refusals
const TELLING: usize = 10;
/// among so many of the newest dead letters of a partition.
const LATELY: usize = 200;

/// A dead letter as the worker writes it.
fn letter(reason: &str) -> Record {
    let header =
        |name: &str, value: &str| (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
    Record {
        value: Some(b"{}".to_vec()),
        headers: vec![
            header("dlq-reason", reason),
            header("dlq-detail", "23514"),
            header("dlq-topic", "orders"),
            header("dlq-partition", "0"),
            header("dlq-offset", "0"),
            header("dlq-timestamp", "0"),
            header("dlq-worker", "e2e"),
        ],
        partition: Some(0),
        ..Record::default()
    }
}

/// Starts a worker that finds so many refusals of the database and behind them so many other dead letters, and gives it a
/// row that the database refuses. Whether its breaker was open: then the row is not dead-lettered.
#[track_caller]
fn starts_open(refusals: usize, others: usize) -> bool {
    let mut stack = Stack::builder("restart").start();
    let topic = stack.addresses().dead_letter_topic.clone();
    let letters = [
        vec![letter("rejected_by_database"); refusals],
        vec![letter("malformed_json"); others],
    ]
    .concat();
    stack.broker().send(&topic, &letters);
    stack
        .database()
        .execute("ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount < 0) NOT VALID");
    let order = Generator::new(181, 1..=1).next().unwrap();
    stack.send(&mut Ledger::default(), &[Draft::order(&order)]);
    stack.launch_worker(&[]);
    until("a row that is refused or held back", || {
        let letters_now: i64 = stack
            .broker()
            .watermarks(&topic)
            .values()
            .map(|(_, end)| end)
            .sum();
        if letters_now > letters.len() as i64 {
            return Ok(false);
        }
        match stack.workers[0].try_state_of("waiting_for") {
            Some(waits) if waits.contains("breaker") => Ok(true),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Otherwise restarts, which whoever sees an unready worker may try, would empty the topic into the dead letters in steps.
#[test]
fn a_restarted_worker_remembers_that_the_database_refused_too_much() {
    assert!(starts_open(TELLING, LATELY - TELLING));
}

#[test]
fn a_few_refusals_and_old_ones_hold_up_nobody() {
    assert!(!starts_open(TELLING - 1, 0), "too few");
    assert!(!starts_open(TELLING, LATELY), "too long ago");
}
