//! Every kind of record, and where it ends.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    slice, thread,
};

use e2e::{
    Broker, Check, Draft, Expected, Ledger, Record, Stack, Timestamps, rejected_samples,
    valid_samples,
};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use shared::order::{Reason, sample::Generator};

const SEED: u64 = 3;

/// Returns every kind of record, shuffled: orders, repetitions, orders from different producers,
/// records that the worker rejects.
fn drafts() -> Vec<Draft> {
    let orders: Vec<Draft> = Generator::new(SEED, 1..=5)
        .take(1700)
        .map(|order| Draft::order(&order))
        .collect();
    let again = orders.iter().step_by(20).cloned();
    let mut drafts: Vec<Draft> = orders.iter().cloned().chain(again).collect();
    drafts.extend(valid_samples(SEED));
    drafts.extend(rejected_samples(SEED));
    drafts.shuffle(&mut StdRng::seed_from_u64(SEED));
    drafts
}

/// Returns other content for every tenth order, and the erasure of every fortieth.
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

/// Asserts that the worker created both topics with their settings.
#[track_caller]
fn assert_topics(stack: &Stack) {
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
}

#[test]
fn every_record_reaches_its_expected_place() {
    let mut stack = Stack::builder("ledger").without_topics().workers(3).start();
    assert_topics(&stack);
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
    assert_eq!(invalid, ledger.rejected().count() as u64);
    assert!(
        stack.workers.iter().all(|worker| worker.all_messages() > 0),
        "a worker finished no record"
    );
    for reason in [
        Reason::TooLarge,
        Reason::FutureTimestamp,
        Reason::MalformedJson,
        Reason::InvalidOrder,
    ] {
        assert!(ledger.rejected().any(|(_, rejected)| rejected == reason));
    }

    stack.start_api();
    stack.start_api();
    stack.start_api_with(&[("LOCAL_CACHE_MAX_BYTES", "0")]);
    thread::scope(|scope| {
        for (api, second) in stack.apis.iter().zip(["local", "local", "redis"]) {
            let (stack, ledger) = (&stack, &ledger);
            scope.spawn(move || stack.check().api(ledger, &api.url(), second));
        }
        scope.spawn(|| stack.check().api_in_postgres(&ledger, &stack.apis[0].url()));
    });
}

#[test]
fn strict_mode_rejects_unknown_fields() {
    let stack = Stack::builder("strict")
        .variable("WORKER_STRICT_FIELDS", "true")
        .workers(1)
        .start();
    let mut ledger = Ledger::default();
    let order = Generator::new(5, 1..=1).next().unwrap();
    let foreign = |uid: &str| {
        let mut order = serde_json::to_value(&order).unwrap();
        order["order_uid"] = uid.into();
        order["payment"]["foreign"] = 1.into();
        order
    };
    let mut invalid = foreign("b");
    invalid["locale"] = "xx_123".into();
    let mut malformed = foreign("c");
    malformed["sm_id"] = "1".into();
    let drafts = [
        Draft::order(&order),
        Draft::rejected(Reason::UnknownField, foreign("a").to_string()),
        Draft::rejected(Reason::UnknownField, invalid.to_string()),
        Draft::rejected(Reason::MalformedJson, malformed.to_string()),
    ];
    stack.send(&mut ledger, &drafts);
    stack.settle();
    stack.check().tiers(&ledger);
}

/// A test of the comparison: it must detect every change from outside.
#[test]
fn every_difference_is_detected() {
    let stack = Stack::builder("notice").workers(1).apis(1).start();
    let mut ledger = Ledger::default();
    let orders: Vec<Draft> = Generator::new(6, 2..=2)
        .take(3)
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &orders);
    stack.send(&mut ledger, &[Draft::erasure("gone")]);
    stack.send(&mut ledger, &rejected_samples(6)[..1]);
    stack.settle();
    stack.check().tiers(&ledger);
    // Like a check of a system with other users. They may have unknown entries, but the entries of
    // the ledger must match.
    let since = BTreeMap::new();
    let of_ledger = Check::of_ledger_only(stack.addresses(), stack.broker(), &since);

    rows_are_compared(&stack, &ledger, &of_ledger);
    let api = stack.apis[0].url();
    stack.check().api(&ledger, &api, "local");
    stack.check().api_in_postgres(&ledger, &api);
    assert_detected(&|| stack.check().api(&ledger, &api, "redis"));

    entries_are_compared(&stack, &ledger, &of_ledger);
    missing_records_are_detected(&stack, &ledger, &of_ledger, &orders[0]);
    dead_letters_are_compared(&stack, &ledger);
}

/// Asserts that the check fails.
#[track_caller]
fn assert_detected(check: &dyn Fn()) {
    let outcome = catch_unwind(AssertUnwindSafe(check));
    assert!(outcome.is_err(), "the check did not detect a difference");
}

fn rows_are_compared(stack: &Stack, ledger: &Ledger, of_ledger: &Check<'_>) {
    for (change, back) in [
        (
            "UPDATE items SET price = price + 1",
            "UPDATE items SET price = price - 1",
        ),
        (
            "UPDATE items SET line_no = 1 - line_no + 10",
            "UPDATE items SET line_no = 11 - line_no",
        ),
        (
            "UPDATE orders SET source_offset = source_offset + 1",
            "UPDATE orders SET source_offset = source_offset - 1",
        ),
        (
            "UPDATE orders SET date_created = date_created + interval '1 microsecond'",
            "UPDATE orders SET date_created = date_created - interval '1 microsecond'",
        ),
        (
            "UPDATE orders SET sm_id = sm_id + 1 WHERE order_uid = 'gone'",
            "UPDATE orders SET sm_id = 0 WHERE order_uid = 'gone'",
        ),
        (
            "UPDATE orders SET order_uid = 'x' WHERE order_uid = 'gone'",
            "UPDATE orders SET order_uid = 'gone' WHERE order_uid = 'x'",
        ),
    ] {
        stack.database().execute(change);
        assert_detected(&|| stack.check().postgres(ledger));
        assert_detected(&|| of_ledger.postgres(ledger));
        stack.database().execute(back);
        stack.check().postgres(ledger);
        of_ledger.postgres(ledger);
    }
}

fn entries_are_compared(stack: &Stack, ledger: &Ledger, of_ledger: &Check<'_>) {
    let key = format!("order:{}", ledger.some_uid());
    for change in [
        &["HSET", &key, "json", "{}"][..],
        &["HSET", "order:gone", "json", "{}"],
        &["HSET", &key, "version", "0"],
        &["HSET", &key, "more", "1"],
        &["HSET", "order:unknown", "version", "0"],
        &["PEXPIRE", &key, "1000000"],
        &["PERSIST", &key],
        &["DEL", &key],
    ] {
        stack.redis.command(&["COPY", change[1], "kept"]);
        stack.redis.command(change);
        assert_detected(&|| stack.check().redis(ledger));
        match change[1] {
            "order:unknown" => of_ledger.redis(ledger),
            _ => assert_detected(&|| of_ledger.redis(ledger)),
        }
        stack.redis.command(&["DEL", change[1]]);
        stack.redis.command(&["COPY", "kept", change[1]]);
        stack.redis.command(&["DEL", "kept"]);
        stack.check().redis(ledger);
    }
}

/// Sends records to another topic, so that the ledger holds records that the system never received.
fn missing_records_are_detected(
    stack: &Stack,
    ledger: &Ledger,
    of_ledger: &Check<'_>,
    order: &Draft,
) {
    let (uid, api) = (ledger.some_uid(), stack.apis[0].url());
    let elsewhere = format!("{}-elsewhere", stack.addresses().topic);
    let broker = Broker::new(&stack.addresses().brokers);
    broker.create_topic(&elsewhere, Timestamps::LogAppend, 1 << 20);
    for draft in [order, &Draft::erasure(&uid), &rejected_samples(6)[1]] {
        let mut more = ledger.clone();
        more.send(&broker, &elsewhere, slice::from_ref(draft));
        assert_detected(&|| stack.check().tiers(&more));
        assert_detected(&|| of_ledger.tiers(&more));
        if !matches!(draft.expected, Expected::Rejected(_)) {
            assert_detected(&|| stack.check().postgres(&more));
            assert_detected(&|| stack.check().redis(&more));
            assert_detected(&|| stack.check().api(&more, &api, "local"));
            assert_detected(&|| stack.check().api_in_postgres(&more, &api));
        }
    }
    broker.delete_topics(&[&elsewhere]);
}

fn dead_letters_are_compared(stack: &Stack, ledger: &Ledger) {
    let dead_letters = stack.addresses().dead_letter_topic.clone();
    let letter = stack.broker().read(&dead_letters).remove(0);
    let again = Record {
        key: letter.key,
        value: letter.value,
        headers: letter
            .headers
            .into_iter()
            .map(|(name, value)| (name.into_bytes(), value))
            .collect(),
        ..Record::default()
    };
    stack.broker().send(&dead_letters, [&again]);
    assert_detected(&|| stack.check().dead_letters(ledger));
    stack.check().dead_letters_at_least_once(ledger);
    for change in [
        |record: &mut Record| record.key = None,
        |record: &mut Record| record.value = None,
        |record: &mut Record| drop(record.headers.remove(0)),
        |record: &mut Record| record.headers[0].1 = Some(b"too_large".to_vec()),
        |record: &mut Record| record.headers.insert(0, (b"more".to_vec(), None)),
    ] {
        let mut changed = again.clone();
        change(&mut changed);
        let other = Broker::new(&stack.addresses().brokers);
        let mut addresses = stack.addresses().clone();
        addresses.dead_letter_topic = format!("{dead_letters}-{:08x}", rand::random::<u32>());
        other.create_topic(&addresses.dead_letter_topic, Timestamps::LogAppend, 1 << 20);
        other.send(&addresses.dead_letter_topic, [&changed]);
        assert_detected(&|| Check::new(&addresses, &other).dead_letters_at_least_once(ledger));
        other.delete_topics(&[&addresses.dead_letter_topic]);
    }
}
