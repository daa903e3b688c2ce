//! From the producer's command line to the last tier.

use std::collections::BTreeMap;

use e2e::{Stack, Stored};
use shared::order::{UnknownFields, decode};

fn reason(letter: &Stored) -> String {
    let (_, value) = letter
        .headers
        .iter()
        .rev()
        .find(|(name, _)| name == "dlq-reason")
        .unwrap();
    String::from_utf8(value.clone().unwrap()).unwrap()
}

#[test]
fn the_summary_of_the_producer_adds_up() {
    let stack = Stack::builder("producer").workers(2).apis(1).start();
    #[rustfmt::skip]
    let arguments = [
        "send", "-n", "500", "--invalid-rate", "0.1", "--seed", "7",
        "--invalid-json", "20", "--gibberish", "20",
    ];
    stack.command("producer", &arguments).succeeded();
    stack.settle();
    assert_eq!(stack.progress(), (540, 540));
    assert_eq!(stack.database().count(), 450);
    let mut reasons = BTreeMap::new();
    for letter in stack.broker().read(&stack.addresses().dead_letter_topic) {
        *reasons.entry(reason(&letter)).or_insert(0) += 1;
    }
    let expected = BTreeMap::from([
        ("invalid_order".to_owned(), 50),
        ("malformed_json".to_owned(), 40),
    ]);
    assert_eq!(reasons, expected);
    let stored: u64 = stack
        .workers
        .iter()
        .map(|worker| worker.messages("stored"))
        .sum();
    assert_eq!(stored, 450);
    let sent = stack.broker().read(&stack.addresses().topic);
    let orders = sent.iter().filter_map(|record| {
        let value = record.value.as_deref()?;
        Some(decode(value, UnknownFields::Reject).ok()?.order)
    });
    for order in orders.step_by(50) {
        let answer = stack.apis[0].order(&order.order_uid);
        assert_eq!((answer.status, answer.body), (200, order.to_json()));
    }
}
