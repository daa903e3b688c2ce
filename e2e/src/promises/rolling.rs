//! Promise 3: a rolling restart.

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{feed::Feed, prober::Prober};

pub(super) const PROMISE: Promise = Promise {
    number: 3,
    sentence: "In a rolling restart under load, every process ends with exit code 0, no record is \
               redelivered, and the api returns no error.",
    trials: &[Trial {
        name: "a_rolling_restart_redelivers_nothing_and_fails_no_request",
        fault: "every worker and every api replica is replaced under load, one at a time; clients \
                use only replicas that are not about to end",
        body: rolling_restart,
    }],
};

fn rolling_restart(run: &mut Run) {
    let rounds = run.choose(1, 10);
    let mut stack = run
        .stack("rolling")
        .variable("WORKER_BATCH_SIZE", "25")
        .workers(2)
        .apis(2)
        .start();
    let database = stack.database();
    database.count_writes();
    let feed = Feed::of_everything(stack.addresses(), run.seed);
    stack.await_orders(200);
    let uids = database.orders().into_keys().collect();
    let prober = Prober::start(&stack.apis, uids);
    for _ in 0..rounds {
        for _ in 0..stack.workers.len() {
            stack.start_worker();
            stack.stop_oldest_workers(1);
            stack.await_orders(database.count() + 100);
        }
        for _ in 0..stack.apis.len() {
            stack.start_api();
            prober.use_only(&stack.apis[1..]);
            stack.apis.remove(0).process.terminate();
        }
    }
    let ledger = feed.stop();
    stack.settle();
    let answers = prober.stop();
    run.figure(
        "restarts",
        rounds * (stack.workers.len() + stack.apis.len()),
    );
    run.figure("records", ledger.records().len());
    run.zero("redelivered", database.written_again());
    run.figure("answers", answers.good);
    let bad = answers.bad;
    assert!(bad.is_empty(), "{} bad answers: {}", bad.len(), bad[0]);
    run.zero("errors", bad.len());
    // Each dead letter exactly once: no rejected record was read again either.
    stack.check().tiers(&ledger);
    for api in &stack.apis {
        stack.check().api(
            &ledger.of_some(run.choose(300, usize::MAX)),
            &api.url(),
            "local",
        );
    }
}
