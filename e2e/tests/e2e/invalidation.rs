//! What the replicas remember, and how they learn that it is outdated.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use e2e::{Draft, Ledger, Stack, until};
use shared::order::{Order, sample::Generator};

/// Remembered for so long that nothing but an announcement can be the reason for a new answer.
const FOR_EVER: [(&str, &str); 2] = [("LOCAL_CACHE_TTL", "1h"), ("NEGATIVE_CACHE_TTL", "1h")];

fn stack(test: &'static str) -> Stack {
    let mut stack = Stack::builder(test).workers(1).start();
    for _ in 0..2 {
        let api = stack.start_api_with(&FOR_EVER);
        until("announcements", || match api.state_of("announcements") {
            heard if heard == "heard" => Ok(()),
            other => Err(other),
        });
    }
    stack
}

fn order(seed: u64) -> Order {
    Generator::new(seed, 1..=3)
        .next()
        .expect("the generator has no end")
}

/// Waits until every replica answers as the ledger says.
fn await_everywhere(stack: &Stack, ledger: &Ledger, uid: &str) {
    let json = ledger.orders()[uid].json.clone();
    for api in &stack.apis {
        until("the newest version on every replica", || {
            match api.order(uid) {
                answer if answer.status == 200 && Some(&answer.body) == json.as_ref() => Ok(()),
                answer => Err(format!("{}: {}", answer.status, answer.text())),
            }
        });
    }
}

#[test]
fn a_change_is_seen_on_every_replica() {
    let stack = stack("change");
    let mut ledger = Ledger::default();
    let first = order(51);
    let uid = first.order_uid.clone();
    stack.send(&mut ledger, &[Draft::order(&first)]);
    for change in 0..10 {
        await_everywhere(&stack, &ledger, &uid);
        for api in &stack.apis {
            api.await_source(&uid, "local");
        }
        let mut changed = order(52 + change);
        changed.order_uid.clone_from(&uid);
        stack.send(&mut ledger, &[Draft::order(&changed)]);
    }
    await_everywhere(&stack, &ledger, &uid);
}

#[test]
fn an_order_that_was_not_found_is_found_when_it_arrives() {
    let stack = stack("negative");
    let mut ledger = Ledger::default();
    for seed in 61..71 {
        let order = order(seed);
        for api in &stack.apis {
            api.order(&order.order_uid).problem(404);
            api.await_source(&order.order_uid, "local").problem(404);
        }
        stack.send(&mut ledger, &[Draft::order(&order)]);
        await_everywhere(&stack, &ledger, &order.order_uid);
    }
}

/// Readers of a hot order that changes all the time never see it go back to an older version.
#[test]
fn a_hot_order_never_goes_back() {
    let stack = stack("hot");
    let uid = order(71).order_uid;
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &[Draft::order(&order(71))]);
    stack.await_status(&uid, 200);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for api in &stack.apis {
            scope.spawn(|| {
                let mut newest = String::new();
                while !done.load(Ordering::Relaxed) {
                    let answer = api.order(&uid);
                    let etag = answer.header("ETag").expect("an ETag").to_owned();
                    assert!(etag >= newest, "{etag} after {newest}");
                    newest = etag;
                }
            });
        }
        for seed in 72..172 {
            let mut changed = order(seed);
            changed.order_uid.clone_from(&uid);
            stack.send(&mut ledger, &[Draft::order(&changed)]);
        }
        done.store(true, Ordering::Relaxed);
    });
    await_everywhere(&stack, &ledger, &uid);
    stack.settle();
    stack.check().tiers(&ledger);
}
