//! Everything that can arrive, and where it ends.

use e2e::{Draft, Ledger, Stack, refused_samples, valid_samples};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use shared::order::{Reason, sample::Generator};

const SEED: u64 = 3;

/// Every kind of record, shuffled: orders, the same order again, orders of many origins, everything that is to be refused.
fn drafts() -> Vec<Draft> {
    let orders: Vec<Draft> = Generator::new(SEED, 1..=5)
        .take(1700)
        .map(|order| Draft::order(&order))
        .collect();
    let again = orders.iter().step_by(20).cloned();
    let mut drafts: Vec<Draft> = orders.iter().cloned().chain(again).collect();
    drafts.extend(valid_samples(SEED));
    drafts.extend(refused_samples(SEED));
    drafts.shuffle(&mut StdRng::seed_from_u64(SEED));
    drafts
}

/// Other content for every tenth of the orders, and the end of every fortieth.
fn changes() -> Vec<Draft> {
    Generator::new(SEED, 1..=5)
        .take(1700)
        .zip(Generator::new(SEED + 1, 1..=7))
        .enumerate()
        .filter_map(|(index, (order, other))| match index {
            _ if index % 40 == 5 => Some(Draft::erasure(&order.order_uid)),
            _ if index % 10 == 5 => {
                let mut changed = other;
                changed.order_uid = order.order_uid;
                Some(Draft::order(&changed))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn every_record_ends_where_it_belongs() {
    let mut stack = Stack::builder("ledger").without_topics().workers(3).start();
    let (orders, letters) = (
        stack.broker().settings(&stack.addresses().topic),
        stack
            .broker()
            .settings(&stack.addresses().dead_letter_topic),
    );
    for (settings, size) in [(&orders, "8388608"), (&letters, "16777216")] {
        assert_eq!(settings["message.timestamp.type"], "LogAppendTime");
        assert_eq!(settings["max.message.bytes"], size);
    }
    assert_eq!(stack.broker().watermarks(&stack.addresses().topic).len(), 6);

    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts());
    stack.send(&mut ledger, &changes());
    assert!(ledger.records().len() > 2000);
    stack.settle();

    stack.check().tiers(&ledger);
    let stood = stack.broker().read(&stack.addresses().topic);
    assert_eq!(stood.len(), ledger.records().len(), "records in the topic");
    let finished: u64 = stack
        .workers
        .iter()
        .map(|worker| worker.all_messages())
        .sum();
    assert_eq!(
        finished,
        stood.len() as u64,
        "records that the workers counted"
    );
    let invalid: u64 = stack
        .workers
        .iter()
        .map(|worker| worker.messages("invalid"))
        .sum();
    assert_eq!(invalid, ledger.refused().count() as u64);
    assert!(
        stack.workers.iter().all(|worker| worker.all_messages() > 0),
        "three workers share the work"
    );
    for reason in [
        Reason::TooLarge,
        Reason::FutureTimestamp,
        Reason::MalformedJson,
        Reason::InvalidOrder,
    ] {
        assert!(ledger.refused().any(|(_, refused)| refused == reason));
    }

    stack.start_api();
    stack.start_api();
    stack.start_api_with(&[("LOCAL_CACHE_MAX_BYTES", "0")]);
    for (api, second) in stack.apis.iter().zip(["local", "local", "redis"]) {
        stack.check().api(&ledger, &api.url(), second);
    }
}
