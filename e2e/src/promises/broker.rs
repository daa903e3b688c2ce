//! Promise 5: the broker and the link to it.

use std::time::Duration;

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::feed::Feed;

pub(super) const PROMISE: Promise = Promise {
    number: 5,
    sentence: "A broker that dies, restarts or has a bad link loses no order, and no process \
               needs a restart.",
    trials: &[Trial {
        name: "a_broker_outage_or_bad_link_loses_nothing",
        fault: "under load, the broker is killed and started again, then shut down cleanly and \
                started again (its last answer is an empty list of brokers); then its link is \
                slow and connections break repeatedly",
        body: hard_times,
    }],
};

/// Additional delay of each chunk on a slow link.
const DELAY: Duration = Duration::from_millis(10);
/// Probability per chunk that a connection breaks on a lossy link.
const LOSS: f64 = 0.005;

fn hard_times(run: &mut Run) {
    let kills = run.choose(1, 5);
    let restarts = run.choose(1, 10);
    let on_bad_link = run.choose(1, 30);
    let mut stack = run
        .stack("broker")
        .private_kafka()
        .variable("WORKER_BATCH_SIZE", "25")
        .workers(2)
        .apis(1)
        .start();
    let feed = Feed::of_everything(stack.addresses(), run.seed);
    let await_more_orders = || stack.await_orders(stack.database().count() + 300);
    for _ in 0..kills {
        await_more_orders();
        stack.kafka().crash();
        stack.kafka().start_again();
    }
    for _ in 0..restarts {
        await_more_orders();
        stack.kafka().stop();
        stack.kafka().start_again();
    }
    await_more_orders();
    stack.kafka().link().impair(DELAY, LOSS);
    for _ in 0..on_bad_link {
        await_more_orders();
    }
    stack.kafka().link().restore();
    let ledger = feed.stop();
    stack.settle();
    let workers = stack.workers.iter_mut();
    let ended = workers.filter_map(|worker| worker.process.ended());
    run.zero("processes ended", ended.count());
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
    let some = ledger.of_some(run.choose(300, usize::MAX));
    stack.check().api(&some, &stack.apis[0].url(), "local");
    run.figure("kills", kills);
    run.figure("restarts", restarts);
    run.figure("orders over the bad link", on_bad_link * 300);
    run.figure("records", ledger.records().len());
    run.figure("lost", 0);
}
