//! Promise 1: workers that die.

use std::os::unix::process::ExitStatusExt;

use rand::Rng;
use shared::fault::{CRASH_AT, Moment};

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{feed::Feed, stack::Worker, wait::until};

pub(super) const PROMISE: Promise = Promise {
    number: 1,
    sentence: "A worker may die at any moment: no order is lost or duplicated, and no dead letter \
               is lost.",
    trials: &[
        Trial {
            name: "killed_workers_lose_and_duplicate_nothing",
            fault: "a worker is killed at random times under load",
            body: killed_at_random,
        },
        Trial {
            name: "workers_killed_at_the_worst_moments_lose_nothing",
            fault: "a worker crashes before BEGIN, after the upsert, before and after COMMIT, \
                    before the Redis write, before the offset is stored, and while partitions are \
                    revoked",
            body: killed_at_worst,
        },
    ],
};

/// The number of SIGABRT.
const ABORTED: i32 = 6;
/// Small enough that each crash affects several batches.
const BATCH: (&str, &str) = ("WORKER_BATCH_SIZE", "25");

fn killed_at_random(run: &mut Run) {
    let kills = run.choose(2, 40);
    let mut rng = run.rng();
    let mut stack = run
        .stack("crash")
        .variable(BATCH.0, BATCH.1)
        .workers(2)
        .start();
    let feed = Feed::of_everything(stack.addresses(), run.seed);
    for _ in 0..kills {
        stack.await_orders(stack.database().count() + rng.random_range(1..400));
        let victim = rng.random_range(0..stack.workers.len());
        stack.workers.remove(victim).process.kill();
        // Sometimes there is no worker for a while.
        if rng.random_bool(0.2) {
            stack.workers.remove(0).process.kill();
            stack.start_worker();
        }
        stack.start_worker();
    }
    let ledger = feed.stop();
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
    stack.assert_no_difference();
    run.figure("kills", kills);
    run.figure("records", ledger.records().len());
    run.figure("lost", 0);
}

fn killed_at_worst(run: &mut Run) {
    let times = run.choose(1, 5);
    let mut rng = run.rng();
    let mut stack = run
        .stack("moments")
        .faulty()
        .variable(BATCH.0, BATCH.1)
        .start();
    let feed = Feed::of_everything(stack.addresses(), run.seed);
    for _ in 0..times {
        stack.stop_workers();
        let under_load = Moment::ALL
            .into_iter()
            .filter(|moment| *moment != Moment::InsideRevoke);
        for moment in under_load {
            let crash_at = format!("{}:{}", moment.as_str(), rng.random_range(1..5));
            stack.launch_worker(&[(CRASH_AT, &crash_at)]);
        }
        stack.workers.drain(..).for_each(await_death);
        // The first worker is alone and owns all partitions until the second one joins.
        let crash_at = format!("{}:1", Moment::InsideRevoke.as_str());
        stack.start_worker_with(&[(CRASH_AT, &crash_at)]);
        stack.start_worker();
        await_death(stack.workers.remove(0));
    }
    let ledger = feed.stop();
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
    stack.assert_no_difference();
    run.figure("crashes", Moment::ALL.len() * times);
    run.figure("records", ledger.records().len());
    run.figure("lost", 0);
}

fn await_death(mut victim: Worker) {
    let status = until("a worker that dies", || {
        victim.process.ended().ok_or("it still runs")
    });
    assert_eq!(status.signal(), Some(ABORTED), "it ended with {status}");
}
