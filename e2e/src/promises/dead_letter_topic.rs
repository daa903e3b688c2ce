//! Promise 8: the dead letter topic.

use shared::order::{Reason, sample::Generator};

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    ledger::Ledger, offset_watch::OffsetWatch, process::Signal, record::Draft, redis::entries,
    stack::Stack, wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 8,
    sentence: "The committed offset never passes a record that the dead letter topic has not \
               acknowledged. Meanwhile, stored orders still reach Redis.",
    trials: &[Trial {
        name: "an_unavailable_dead_letter_topic_holds_the_offset_back",
        fault: "the dead letter topic accepts nothing, and the workers are replaced meanwhile",
        body: unavailable,
    }],
};

fn unavailable(run: &mut Run) {
    let rounds = run.choose(1, 10);
    let mut stack = run
        .stack("unavailable")
        // The shutdown reserves 10 s of this. It waits the remaining second for unfinished records.
        .variable("WORKER_SHUTDOWN_TIMEOUT", "11s")
        .workers(1)
        .start();
    let topic = stack.addresses().dead_letter_topic.clone();
    let redis = stack.addresses().redis_url.clone();
    let mut versions = Generator::new(run.seed, 1..=3).map(|mut order| {
        order.order_uid = "known".into();
        Draft::order(&order)
    });
    let mut version = || versions.next().expect("the generator has no end");
    let malformed = || Draft::rejected(Reason::MalformedJson, b"{".to_vec());
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &[version()]);
    stack.settle();
    stack.check().tiers(&ledger);
    let watch = OffsetWatch::start(stack.addresses());

    for _ in 0..rounds {
        // Not even an empty record fits.
        stack.broker().limit(&topic, 1);
        let before = stack.progress().0;
        let mut drafts = [malformed(), version(), malformed()];
        // All in one batch, with a rejected record at the front.
        for draft in &mut drafts {
            draft.record.partition = Some(0);
        }
        stack.workers[0].process.signal(Signal::Stop);
        stack.send(&mut ledger, &drafts);
        stack.workers[0].process.signal(Signal::Continue);
        let newest = ledger.orders()["known"].version.to_string();
        await_stored_but_waiting(&stack, &redis, &newest);
        // A worker that shuts down commits every record that it has finished.
        stack.stop_workers();
        assert_eq!(
            stack.progress().0,
            before,
            "the offset passed an unfinished record"
        );

        stack.broker().limit(&topic, 1 << 20);
        stack.start_worker();
        watch.settle(&stack);
        stack.check().tiers(&ledger);
    }
    watch.stop();
    run.figure("rounds", rounds);
    run.figure("skipped", 0);
}

/// Waits until Redis holds the order in this version, and the worker waits for the dead letter
/// topic.
fn await_stored_but_waiting(stack: &Stack, redis: &str, newest: &str) {
    until("the new version in Redis", || {
        match entries(redis).unwrap()["known"].version() {
            Some(version) if version == newest => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    until(
        "a worker that waits for the dead letter topic",
        || match stack.workers[0].admin.state_of("waiting_for") {
            waits if waits.contains("dead_letter_topic") => Ok(()),
            other => Err(other),
        },
    );
}
