//! Promise 2: the committed offset.

use shared::order::{Order, Reason, sample::Generator};

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    feed::Feed, kafka::Timestamps, ledger::Ledger, offset_watch::OffsetWatch, postgres::Database,
    proxy::Proxy, record::Draft, stack::Stack, wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 2,
    sentence: "The committed offset never passes a record that is neither stored nor \
               dead-lettered. It moves back only if the topic is truncated or recreated.",
    trials: &[
        Trial {
            name: "rebalances_skip_no_record",
            fault: "under load, two workers become six and two again, repeatedly; the trial \
                    checks the offsets every 100 ms",
            body: come_and_go,
        },
        Trial {
            name: "an_unfinished_record_holds_the_offset_back",
            fault: "another session locks the row of one order while all later records are \
                    stored, then the worker is killed",
            body: held_back,
        },
        Trial {
            name: "a_late_commit_answer_moves_no_offset_back",
            fault: "a worker loses its partitions while it waits for the answer to COMMIT, and \
                    gets them back after another worker has finished all records; then the answer \
                    arrives",
            body: late_answer,
        },
        Trial {
            name: "a_recreated_topic_is_read_from_its_beginning",
            fault: "the topic is deleted and recreated, with fewer records and with more, while \
                    workers run and while they are stopped",
            body: recreated,
        },
    ],
};

/// Small enough that each rebalance affects several batches.
const BATCH: (&str, &str) = ("WORKER_BATCH_SIZE", "25");
const PARTITIONS: i32 = 6;
/// The limit that the worker sets when it creates the topic.
const TOPIC_MAX_BYTES: u32 = 8 << 20;

fn come_and_go(run: &mut Run) {
    let swings = run.choose(2, 30);
    let mut stack = run
        .stack("rebalance")
        .variable(BATCH.0, BATCH.1)
        .workers(2)
        .start();
    let watch = OffsetWatch::start(stack.addresses());
    let feed = Feed::of_everything(stack.addresses(), run.seed);
    for _ in 0..swings {
        await_more_orders(&stack);
        stack.start_workers(4);
        await_more_orders(&stack);
        stack.stop_oldest_workers(4);
    }
    let ledger = feed.stop();
    watch.settle(&stack);
    let looks = watch.stop();
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
    run.figure("rebalances", swings * 2);
    run.figure("offset checks", looks);
    run.figure("records", ledger.records().len());
    run.figure("skipped", 0);
}

fn await_more_orders(stack: &Stack) {
    stack.await_orders(stack.database().count() + 200);
}

/// Waits until a session of the database waits for a lock.
fn await_lock_wait(database: &Database) {
    until("a worker that waits for the lock", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
        match database.number(waiting) {
            1.. => Ok(()),
            _ => Err("no session waits"),
        }
    });
}

fn held_back(run: &mut Run) {
    let rounds = run.choose(1, 5);
    let mut stack = run
        .stack("held")
        .variable(BATCH.0, BATCH.1)
        .workers(1)
        .start();
    let database = stack.database();
    let mut orders = Generator::new(run.seed, 1..=3);
    let mut ledger = Ledger::default();
    let locked: Order = orders.next().expect("the generator has no end");
    stack.send(&mut ledger, &in_partition(0, [Draft::order(&locked)]));
    stack.settle();

    for _ in 0..rounds {
        let watch = OffsetWatch::start(stack.addresses());
        let mut rival = database.session();
        rival.execute("BEGIN; SELECT FROM orders FOR UPDATE");
        let mut changed = orders.next().expect("the generator has no end");
        changed.order_uid.clone_from(&locked.order_uid);
        stack.send(&mut ledger, &in_partition(0, [Draft::order(&changed)]));
        await_lock_wait(&database);
        // Further batches of the same partition.
        let later: Vec<Draft> = orders
            .by_ref()
            .take(60)
            .map(|order| Draft::order(&order))
            .chain([Draft::rejected(Reason::MalformedJson, b"{".to_vec())])
            .collect();
        let stored = database.count() + later.len() - 1;
        stack.send(&mut ledger, &in_partition(0, later));
        stack.await_orders(stored);
        // The worker commits the offsets of all partitions at once. A commit of this partition
        // would also reveal a wrong offset of the other one.
        let next = orders.next().expect("the generator has no end");
        stack.send(&mut ledger, &in_partition(1, [Draft::order(&next)]));
        until(
            "the other partition is finished",
            || match finished_partitions(&stack) {
                finished if finished.contains(&1) => Ok(()),
                finished => Err(format!("{finished:?}")),
            },
        );
        watch.assert_no_failure();
        stack.workers.remove(0).process.kill();
        drop(rival);
        stack.start_worker();
        watch.settle(&stack);
        watch.stop();
    }
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
    run.figure("rounds", rounds);
    run.figure("skipped", 0);
}

fn late_answer(run: &mut Run) {
    let mut stack = run.stack("late").variable(BATCH.0, BATCH.1).start();
    let proxy = Proxy::to(&stack.addresses().database_url);
    let url = proxy.url(&stack.addresses().database_url);
    stack.start_worker_with(&[("DATABASE_URL", &url), ("DATABASE_TIMEOUT", "60s")]);
    let mut orders = Generator::new(run.seed, 1..=3).map(|order| Draft::order(&order));
    let mut everywhere = |count: i32| -> Vec<Draft> {
        let drafts = (0..count).zip(orders.by_ref());
        drafts
            .flat_map(|(number, draft)| in_partition(number % PARTITIONS, [draft]))
            .collect()
    };
    let mut ledger = Ledger::default();
    proxy.hold_commits();
    stack.send(&mut ledger, &everywhere(120));
    stack.await_orders(1);

    stack.start_worker();
    let watch = OffsetWatch::start(stack.addresses());
    stack.send(&mut ledger, &everywhere(120));
    until(
        "the other one has finished its half",
        || match finished_partitions(&stack) {
            half if half.len() == PARTITIONS as usize / 2 => Ok(()),
            finished => Err(format!("{finished:?}")),
        },
    );
    stack.workers.remove(1).process.terminate();
    until("the first one has everything again", || {
        let log = stack.workers[0].process.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("partitions assigned"));
        match lines.count() {
            2.. => Ok(()),
            _ => Err(log),
        }
    });
    proxy.restore();
    watch.settle(&stack);
    let looks = watch.stop();
    stack.check().tiers(&ledger);
    run.figure("offset checks", looks);
    run.figure("moved back", 0);
}

fn recreated(run: &mut Run) {
    let rounds = run.choose(4, 12);
    let mut stack = run
        .stack("recreated")
        .private_kafka()
        .variable(BATCH.0, BATCH.1)
        .workers(2)
        .start();
    let mut orders = Generator::new(run.seed, 1..=3);
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &some_known(&mut orders, 300, None));
    stack.settle();
    // After the restart the leader epochs of the old topic are higher than those of the new one.
    stack.kafka().stop();
    stack.kafka().start_again();
    stack.settle();
    for round in 0..rounds {
        let (count, is_running) = (if round % 2 == 0 { 60 } else { 700 }, round % 4 < 2);
        if !is_running {
            stack.stop_workers();
        }
        let topic = &stack.addresses().topic;
        stack.broker().delete_topics(&[topic]);
        stack
            .broker()
            .create_topic(topic, Timestamps::LogAppend, TOPIC_MAX_BYTES);
        let known = ledger.some_uid();
        stack.send(&mut ledger, &some_known(&mut orders, count, Some(&known)));
        if !is_running {
            stack.start_workers(2);
        }
        // Until the worker notices the new log, offsets of the old log may look like offsets of the
        // new one.
        stack.check().await_versions(&ledger);
        until("every partition finished", || {
            match finished_partitions(&stack) {
                all if all.len() == PARTITIONS as usize => Ok(()),
                finished => Err(format!("{finished:?}")),
            }
        });
        stack.settle();
        stack.check().postgres(&ledger);
        stack.check().redis(&ledger);
    }
    run.figure("recreations", rounds);
    run.figure("records", ledger.records().len());
    run.figure("skipped", 0);
}

/// Returns new orders, one of them as another version of the order `known`.
fn some_known(orders: &mut Generator, count: usize, known: Option<&str>) -> Vec<Draft> {
    let mut orders: Vec<Order> = orders.by_ref().take(count).collect();
    if let Some(known) = known {
        orders[count / 2].order_uid = known.into();
    }
    orders.iter().map(Draft::order).collect()
}

fn in_partition(partition: i32, drafts: impl IntoIterator<Item = Draft>) -> Vec<Draft> {
    let drafts = drafts.into_iter().map(|mut draft| {
        draft.record.partition = Some(partition);
        draft
    });
    drafts.collect()
}

/// Returns the partitions whose records are all finished.
fn finished_partitions(stack: &Stack) -> Vec<i32> {
    let addresses = stack.addresses();
    let ends = stack.broker().watermarks(&addresses.topic);
    let committed =
        stack
            .broker()
            .committed(&addresses.group_id, &addresses.topic, ends.keys().copied());
    let finished = committed
        .into_iter()
        .filter(|(partition, committed)| ends[partition].1 == *committed);
    finished.map(|(partition, _)| partition).collect()
}
