//! Workers that die, come and go in mid-stream.

use e2e::{Feed, Signal, Stack, until};

/// So small that each crash meets several batches.
const BATCH: (&str, &str) = ("WORKER_BATCH_SIZE", "25");

#[test]
fn killed_workers_lose_nothing_and_double_nothing() {
    let mut stack = Stack::builder("crash")
        .variable(BATCH.0, BATCH.1)
        .workers(2)
        .start();
    let feed = Feed::of_everything(stack.addresses(), 11);
    for _ in 0..3 {
        stack.await_orders(stack.database().count() + 200);
        stack.workers.remove(0).process.kill();
        stack.start_worker();
    }
    stack.await_orders(stack.database().count() + 200);
    // Nobody is left.
    stack.workers.remove(0).process.kill();
    stack.workers.remove(0).process.kill();
    stack.start_worker();
    stack.await_orders(stack.database().count() + 200);
    let ledger = feed.stop();
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
}

#[test]
fn workers_that_come_and_go_lose_nothing() {
    let mut stack = Stack::builder("rebalance")
        .variable(BATCH.0, BATCH.1)
        .workers(1)
        .start();
    let feed = Feed::of_everything(stack.addresses(), 12);
    stack.await_orders(200);
    stack.start_worker();
    stack.start_worker();
    stack.await_orders(stack.database().count() + 200);
    stack.workers.remove(0).process.terminate();
    stack.await_orders(stack.database().count() + 200);
    stack.start_worker();
    stack.workers.remove(0).process.terminate();
    stack.await_orders(stack.database().count() + 200);
    let ledger = feed.stop();
    stack.settle();
    stack.check().tiers(&ledger);
}

/// A worker that stands still holds up nobody for longer than its session lasts, and does no harm when it goes on.
#[test]
fn a_frozen_worker_blocks_nobody_and_overwrites_nothing() {
    let mut stack = Stack::builder("freeze")
        .variable(BATCH.0, BATCH.1)
        .workers(2)
        .start();
    let feed = Feed::of_everything(stack.addresses(), 13);
    stack.await_orders(200);
    stack.workers[0].process.signal(Signal::Stop);
    // More than the stream runs ahead of what is finished: the other worker has all partitions now.
    stack.await_orders(stack.database().count() + 2000);
    stack.workers[0].process.signal(Signal::Continue);
    let before = stack.workers[0].all_messages();
    until("records of the worker that was frozen", || {
        match stack.workers[0].all_messages() {
            now if now > before => Ok(()),
            now => Err(now),
        }
    });
    let ledger = feed.stop();
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
}
