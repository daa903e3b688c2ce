//! Promise 4: workers that freeze.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng};
use shared::order::sample::Generator;

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    feed::Feed, ledger::Ledger, postgres::Session, process::Signal, proxy::Proxy, record::Draft,
    stack::Worker, wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 4,
    sentence: "A worker that freezes in the middle of a write delays the others by at most 10 s, \
               and overwrites no newer version when it continues.",
    trials: &[Trial {
        name: "frozen_workers_do_not_block_others_or_overwrite_newer_versions",
        fault: "one worker is frozen in the middle of a COPY and another between two statements \
                of a transaction, for longer than the session timeouts, while a third worker \
                stores newer versions of the same orders",
        body: frozen,
    }],
};

/// Delay of the workers' links to Postgres, so that a transaction takes long enough to be caught in
/// its middle.
const SLOW: Duration = Duration::from_millis(10);
/// A session that has waited this long for its client has no data in flight.
const STILL_MS: u64 = 200;
/// How long the other workers may wait for locks.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

const IN_COPY: &str = "state = 'active' AND query LIKE 'COPY%'";
const BETWEEN_STATEMENTS: &str = "state = 'idle in transaction'";

fn frozen(run: &mut Run) {
    let rounds = run.choose(1, 5);
    let mut longest = Duration::ZERO;
    let mut overtaken = 0;
    for round in 0..rounds {
        let (wait, orders) = freeze_and_thaw(run, run.seed.wrapping_add(round));
        longest = longest.max(wait);
        overtaken += orders;
    }
    run.figure("rounds", rounds);
    run.figure("overtaken orders", overtaken);
    run.figure("longest wait for locks", format!("{longest:.1?}"));
    run.figure("newer versions overwritten", 0);
    if run.choose(false, true) {
        assert!(
            longest <= LONGEST_WAIT,
            "others waited {longest:?} for locks"
        );
    }
}

/// Returns a newer version of each order that is not stored, for a random partition.
fn changes(ledger: &Ledger, stored: &BTreeSet<String>, seed: u64, rng: &mut StdRng) -> Vec<Draft> {
    let unfinished = ledger
        .orders()
        .into_keys()
        .filter(|uid| !stored.contains(uid));
    unfinished
        .zip(Generator::new(!seed, 1..=3))
        .map(|(uid, mut other)| {
            other.order_uid = uid.into();
            let mut draft = Draft::order(&other);
            draft.record.partition = Some(rng.random_range(0..6));
            draft
        })
        .collect()
}

/// Returns the longest wait of other workers for locks, and the number of orders that they changed
/// while a frozen worker held them.
fn freeze_and_thaw(run: &Run, seed: u64) -> (Duration, usize) {
    let mut rng = run.rng();
    let mut stack = run
        .stack("freeze")
        .variable("WORKER_BATCH_SIZE", "100")
        .apis(1)
        .start();
    let database = stack.database();
    let mut session = database.session();
    let proxies = [(); 2].map(|()| Proxy::to(&stack.addresses().database_url));
    for proxy in &proxies {
        let url = proxy.url(&stack.addresses().database_url);
        stack.start_worker_with(&[("DATABASE_URL", &url)]);
        proxy.impair(SLOW, 0.0);
    }
    stack.start_worker();
    let feed = Feed::of_distinct_orders(stack.addresses(), seed);
    for (index, state) in [IN_COPY, BETWEEN_STATEMENTS].into_iter().enumerate() {
        freeze(
            &mut stack.workers[index],
            &proxies[index],
            &mut session,
            state,
        );
    }
    // Newer versions of the orders that the frozen workers hold or that were just sent.
    let mut ledger = feed.stop();
    let stored: BTreeSet<String> = database.orders().into_keys().collect();
    let changes = changes(&ledger, &stored, seed, &mut rng);
    stack.send(&mut ledger, &changes);
    let mut waits = LockWaits::default();
    until("all records finished by the third worker", || {
        waits.look(&mut session);
        match stack.progress() {
            (finished, all) if finished == all => Ok(()),
            (finished, all) => Err(format!("{finished} of {all} records finished")),
        }
    });
    stack.check().postgres(&ledger);

    for (worker, proxy) in stack.workers.iter_mut().zip(&proxies) {
        proxy.restore();
        worker.process.signal(Signal::Continue);
    }
    // A worker that shuts down finishes its batches.
    stack.stop_workers();
    stack.start_worker();
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
    stack.check().dead_letters(&ledger);
    stack.assert_no_difference();
    stack.check().api(
        &ledger.of_some(run.choose(300, usize::MAX)),
        &stack.apis[0].url(),
        "local",
    );
    (waits.longest, changes.len())
}

/// Freezes `worker` at a moment at which one of its sessions is inside a transaction and in that
/// state.
#[track_caller]
fn freeze(worker: &mut Worker, proxy: &Proxy, database: &mut Session, state: &str) {
    until(&format!("a worker with a session {state}"), || {
        worker.process.signal(Signal::Stop);
        let ports = proxy.ports().iter().map(u16::to_string).collect::<Vec<_>>();
        let caught = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE client_port IN ({}) \
             AND wait_event = 'ClientRead' AND {state} \
             AND xact_start < clock_timestamp() - interval '{STILL_MS} ms' \
             AND greatest(query_start, state_change) < clock_timestamp() - interval '{STILL_MS} \
             ms'",
            ports.join(", ")
        );
        let stopped = Instant::now();
        while stopped.elapsed() < Duration::from_millis(2 * STILL_MS) {
            if database.number(&caught) > 0 {
                return Ok(());
            }
        }
        worker.process.signal(Signal::Continue);
        Err("it was never in that state when it was stopped")
    });
}

/// How long sessions wait for locks, measured from outside.
#[derive(Default)]
struct LockWaits {
    since: Option<Instant>,
    longest: Duration,
}

impl LockWaits {
    fn look(&mut self, database: &mut Session) {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        if database.number(waiting) == 0 {
            self.since = None;
        } else {
            let since = *self.since.get_or_insert_with(Instant::now);
            self.longest = self.longest.max(since.elapsed());
        }
    }
}
