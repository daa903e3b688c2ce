//! Outages of Postgres and Kafka.

use e2e::{Api, Http, Ledger, Stack, until};

use crate::orders::{changes, drafts};

/// Asserts that every replica answers every order correctly, also during an outage.
#[track_caller]
fn assert_readable(stack: &Stack, ledger: &Ledger) {
    let http = Http::new();
    for api in &stack.apis {
        for (uid, state) in ledger.orders() {
            until("the newest version through the api", || {
                let answer = http.get(&format!("{}/order/{uid}", api.url()));
                if answer.status == 200 && Some(&answer.body) == state.json.as_ref() {
                    Ok(())
                } else {
                    Err(format!("{}: {}", answer.status, answer.text()))
                }
            });
        }
    }
}

/// Waits until every worker waits for Postgres. Meanwhile it stays live.
fn await_waiting_workers(stack: &Stack) {
    for worker in &stack.workers {
        until("state down of postgres", || {
            match worker.admin.state_of("postgres") {
                state if state == "down" => Ok(()),
                other => Err(other),
            }
        });
    }
    until("workers that wait for Postgres", || {
        let waits: Vec<String> = stack
            .workers
            .iter()
            .map(|worker| worker.admin.state_of("waiting_for"))
            .collect();
        match waits.iter().all(|waits| waits.contains("postgres")) {
            true => Ok(()),
            false => Err(waits.join("; ")),
        }
    });
    for worker in &stack.workers {
        // During the attempts as well, not only between them.
        for _ in 0..100 {
            let waits = worker.admin.state_of("waiting_for");
            assert!(waits.contains("postgres"), "{waits}");
        }
        assert_eq!(
            worker.admin.get("/livez").status,
            200,
            "a waiting worker is live"
        );
    }
}

/// Asserts that the api returns what Redis holds, and 503 for everything else.
fn assert_served_without_postgres(api: &Api, ledger: &Ledger, cached: &str, uncached: &str) {
    until("state down of postgres", || {
        match api.admin.state_of("postgres") {
            state if state == "down" => Ok(()),
            other => Err(other),
        }
    });
    assert_eq!(
        api.admin.get("/readyz").status,
        200,
        "ready with Redis alone"
    );
    let answer = api.order(cached);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(Some(answer.body), ledger.orders()[cached].json);
    for uid in [uncached, "unknown"] {
        let answer = api.order(uid);
        answer.problem(503);
        let seconds = answer.header("Retry-After").expect("Retry-After");
        assert!(
            seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0),
            "{seconds}"
        );
    }
    api.order_in_postgres(cached).problem(503);
}

#[test]
fn without_postgres_no_order_is_lost_and_cached_orders_are_served() {
    let mut stack = Stack::builder("postgres")
        .private_postgres()
        .variable("DATABASE_TIMEOUT", "1s")
        .workers(2)
        .start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(131, 100));
    stack.settle();
    // Without a local cache, only entries in Redis are cached.
    stack.start_api_with(&[("DATABASE_TIMEOUT", "1s"), ("LOCAL_CACHE_MAX_BYTES", "0")]);
    let uids: Vec<String> = ledger.orders().into_keys().collect();
    let (cached, uncached) = (&uids[0], &uids[1]);

    for (round, outage) in [(0, Outage::Crash), (1, Outage::Freeze)] {
        stack.redis.evict(uncached);
        outage.begin(&stack);
        let before = stack.progress().0;
        stack.send(&mut ledger, &drafts(132 + round, 200));
        await_waiting_workers(&stack);
        assert_served_without_postgres(&stack.apis[0], &ledger, cached, uncached);
        assert_eq!(stack.progress().0, before, "an offset moved");
        let letters = stack.broker().read(&stack.addresses().dead_letter_topic);
        assert!(letters.is_empty(), "a record was dead-lettered");
        outage.end(&stack);
        stack.settle();
        stack.check().postgres(&ledger);
        stack.check().dead_letters(&ledger);
        assert_readable(&stack, &ledger);
    }
}

#[derive(Clone, Copy)]
enum Outage {
    Crash,
    Freeze,
}

impl Outage {
    fn begin(self, stack: &Stack) {
        match self {
            Self::Crash => stack.postgres().crash(),
            Self::Freeze => stack.postgres().freeze(),
        }
    }

    fn end(self, stack: &Stack) {
        match self {
            Self::Crash => stack.postgres().start_again(),
            Self::Freeze => stack.postgres().thaw(),
        }
    }
}

#[test]
fn without_kafka_workers_wait_or_shut_down_and_the_api_serves() {
    let mut stack = Stack::builder("kafka")
        .private_kafka()
        .workers(2)
        .apis(1)
        .start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(151, 100));
    stack.settle();
    stack.kafka().stop();
    for worker in &stack.workers {
        until("Kafka is seen to be down", || {
            match worker.admin.state_of("kafka") {
                state if state == "down" => Ok(()),
                other => Err(other),
            }
        });
        assert_eq!(worker.admin.get("/livez").status, 200);
    }
    assert_eq!(stack.apis[0].admin.get("/readyz").status, 200);
    assert_readable(&stack, &ledger);
    stack.workers.remove(0).process.terminate();

    stack.kafka().start_again();
    stack.send(&mut ledger, &drafts(152, 100));
    stack.send(&mut ledger, &changes(151, 50));
    stack.settle();
    stack.check().tiers(&ledger);
    assert_readable(&stack, &ledger);
}
