//! Promise 12: requests for orders that do not exist yet.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use shared::order::sample::Generator;

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{http::Http, ledger::Ledger, readers::Readers, record::Draft, wait::until};

pub(super) const PROMISE: Promise = Promise {
    number: 12,
    sentence: "An order that was not found is found on every replica within 2 s of its commit. \
               Requests for unknown uids take no memory.",
    trials: &[
        Trial {
            name: "an_order_cached_as_not_found_is_found_when_it_arrives",
            fault: "every replica caches \"not found\" for an hour, then the order arrives",
            body: arrives,
        },
        Trial {
            name: "unknown_uids_take_no_memory",
            fault: "requests for a million unknown uids",
            body: unknown_uids,
        },
    ],
};

/// The promised limit, in microseconds.
const FOUND_US: i64 = 2_000_000;

/// Interval between two requests to a replica.
const PACE: Duration = Duration::from_millis(1);

fn arrives(run: &mut Run) {
    let mut stack = run.stack("negative").workers(1).start();
    for _ in 0..2 {
        // Cached for so long that only an announcement can cause a new answer.
        let api = stack.start_api_with(&[("LOCAL_CACHE_TTL", "1h"), ("NEGATIVE_CACHE_TTL", "1h")]);
        until("announcements", || {
            match api.admin.state_of("announcements") {
                state if state == "subscribed" => Ok(()),
                other => Err(other),
            }
        });
    }
    let count = run.choose(10, 200);
    let mut ledger = Ledger::default();
    let mut found = BTreeMap::new();
    for order in Generator::new(run.seed, 1..=3).take(count) {
        for api in &stack.apis {
            api.order(&order.order_uid).problem(404);
            api.await_source(&order.order_uid, "local").problem(404);
        }
        let uid = [order.order_uid.to_string()];
        let readers = Readers::start(&stack.apis, &uid, PACE);
        stack.send(&mut ledger, &[Draft::order(&order)]);
        stack.await_status(&order.order_uid, 200);
        let last = readers.stop().into_iter().map(|reads| {
            let missed = reads.iter().rev().find(|read| read.status == 404);
            missed.map(|read| read.at_us)
        });
        let [uid] = uid;
        found.insert(uid, last.max().flatten());
    }
    stack.settle();
    stack.check().tiers(&ledger);
    for api in &stack.apis {
        stack.check().api(&ledger, &api.url(), "local");
    }
    // The row carries the time at which its transaction began.
    let rows = stack.database().orders();
    let late = rows.iter().map(|(uid, row)| match found[uid] {
        Some(missed) => missed - row.updated_at,
        None => 0,
    });
    let slowest = late.max().expect("orders").max(0);
    run.figure("orders", count);
    run.figure(
        "last not found",
        format!("{:.1} ms", slowest as f64 / 1000.0),
    );
    assert!(
        !run.is_full() || slowest <= FOUND_US,
        "missed {slowest} µs after its commit"
    );
}

/// Clients that send requests at the same time.
const CLIENTS: usize = 4;
/// Small enough to be full before half of the requests are sent.
const LOCAL_CACHE: &str = "2MiB";
/// Memory besides the cache: buffers and memory that the allocator keeps.
const MAX_GROWTH: usize = 16 << 20;

fn unknown_uids(run: &mut Run) {
    let mut stack = run.stack("unknown_uids").workers(1).start();
    let api = stack.start_api_with(&[("LOCAL_CACHE_MAX_BYTES", LOCAL_CACHE)]);
    let questions = run.choose(20_000, 1_000_000);
    ask(run.seed, &api.url(), questions / 2);
    let half = api.process.resident_bytes();
    ask(run.seed + 1, &api.url(), questions / 2);
    let all = api.process.resident_bytes();
    let growth = all.saturating_sub(half);
    assert!(growth < MAX_GROWTH, "{growth} bytes more");
    run.figure("uids", questions);
    run.figure("memory after half", format!("{} MiB", half >> 20));
    run.figure("memory after all", format!("{} MiB", all >> 20));
}

/// Requests that many uids that do not exist.
fn ask(seed: u64, url: &str, questions: usize) {
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..CLIENTS as u64 {
            let asked = &asked;
            scope.spawn(move || {
                let http = Http::new();
                let mut rng = StdRng::seed_from_u64(seed ^ client << 32);
                while asked.fetch_add(1, Ordering::Relaxed) < questions {
                    let url = format!("{url}/order/{:032x}", rng.random::<u128>());
                    // The api answers 503 while its queue for Postgres is full.
                    until("an answer", || match http.get(&url).status {
                        404 => Ok(()),
                        other => Err(other),
                    });
                }
            });
        }
    });
}
