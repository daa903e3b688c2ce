//! Promise 11: the api without Redis.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use shared::order::sample::Generator;

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    ledger::Ledger,
    readers::Readers,
    record::Draft,
    stack::{Api, Stack},
    wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 11,
    sentence: "Without Redis, no request fails, and each replica reads an order from Postgres at \
               most once a second, regardless of the number of requests.",
    trials: &[
        Trial {
            name: "without_redis_no_request_fails",
            fault: "Redis is killed for 60 s under 500 requests a second",
            body: killed,
        },
        Trial {
            name: "each_replica_reads_a_cold_order_once",
            fault: "2000 clients request one order at the same time, and no cache holds it",
            body: cold,
        },
    ],
};

/// Orders that are read: few, so that the bound on queries is strict.
const ORDERS: usize = 50;

fn drafts(run: &Run, count: usize) -> Vec<Draft> {
    let orders = Generator::new(run.seed, 1..=3).take(count);
    orders.map(|order| Draft::order(&order)).collect()
}

/// Returns how many orders an api has read from Postgres.
fn queries(api: &Api) -> u64 {
    api.admin
        .metric("db_query_duration_seconds_count", "query=\"read\"")
}

fn all_queries(stack: &Stack) -> u64 {
    stack.apis.iter().map(queries).sum()
}

fn killed(run: &mut Run) {
    let (rate, outage) = run.choose((100, 3), (500, 60));
    let mut stack = run.stack("no-redis").workers(1).apis(2).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(run, ORDERS));
    stack.settle();
    let uids: Vec<String> = ledger.orders().into_keys().collect();
    let pace = Duration::from_secs(1) * stack.apis.len() as u32 / rate;
    let readers = Readers::start(&stack.apis, &uids, pace);
    await_reads(&readers, rate as usize);

    let (began, before, read) = (Instant::now(), all_queries(&stack), readers.count());
    stack.redis.crash();
    await_reads(&readers, (rate * outage) as usize);
    let asked = readers.count() - read;
    let queries = all_queries(&stack) - before;
    // Without announcements the local cache keeps an order for a second.
    let bound = (stack.apis.len() * ORDERS) as u64 * (began.elapsed().as_secs() + 2);

    stack.redis.start_again();
    await_reads(&readers, rate as usize);
    let reads = readers.stop();
    stack.settle();
    stack.await_answers(&ledger);
    stack.check().postgres(&ledger);
    stack.check().redis_remains(&ledger);
    stack.assert_no_difference();

    run.figure("requests", asked);
    run.figure("queries", queries);
    let failed = reads.iter().flatten().filter(|read| read.status >= 500);
    run.zero("5xx", failed.count());
    assert!(reads.iter().flatten().all(|read| read.status == 200));
    assert!(queries <= bound, "{queries} queries, more than {bound}");
}

#[track_caller]
fn await_reads(readers: &Readers, more: usize) {
    // Waits in steps, because the longest outage takes longer than the deadline of one wait.
    const STEP: usize = 100;
    for step in (0..more).step_by(STEP) {
        let count = readers.count() + STEP.min(more - step);
        until("more requests", || match readers.count() {
            now if now >= count => Ok(()),
            now => Err(now),
        });
    }
}

fn cold(run: &mut Run) {
    let clients = run.choose(200, 2000);
    let mut stack = run.stack("cold").workers(1).start();
    for _ in 0..2 {
        stack.start_api_with(&[("CACHE_WARMUP", "0")]);
    }
    let mut ledger = Ledger::default();
    let rounds = run.choose(3, 10);
    stack.send(&mut ledger, &drafts(run, rounds));
    stack.settle();
    for uid in ledger.orders().keys() {
        stack.redis.evict(uid);
        let before: Vec<u64> = stack.apis.iter().map(queries).collect();
        let answers = ask_at_once(&stack.apis, uid, clients);
        assert_eq!(
            answers,
            BTreeMap::from([(200, clients)]),
            "answers by status"
        );
        for (api, before) in stack.apis.iter().zip(before) {
            assert!(
                queries(api) - before <= 1,
                "one replica read an order more than once"
            );
        }
    }
    stack.await_redis(&ledger);
    stack.check().tiers(&ledger);
    for api in &stack.apis {
        stack.check().api(&ledger, &api.url(), "local");
    }
    run.figure("clients", clients);
    run.figure("rounds", rounds);
    run.figure("queries per order and replica", 1);
}

/// Sends requests for `uid` from this many clients at the same moment, each on its own connection.
/// Returns the number of answers by status.
fn ask_at_once(apis: &[Api], uid: &str, clients: usize) -> BTreeMap<u16, usize> {
    let barrier = Barrier::new(clients);
    let mut answers = BTreeMap::new();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..clients)
            .map(|client| {
                let (barrier, address) = (&barrier, apis[client % apis.len()].address());
                let request = format!(
                    "GET /order/{uid} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
                );
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(&address).unwrap();
                    barrier.wait();
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    answer["HTTP/1.1 ".len()..][..3].parse::<u16>().unwrap()
                })
            })
            .collect();
        for client in asking {
            *answers.entry(client.join().unwrap()).or_default() += 1;
        }
    });
    answers
}
