//! Redis and Postgres that are away for a while.

use e2e::{Draft, Entry, Feed, Http, Ledger, Signal, Stack, entries, until};
use shared::order::{Order, sample::Generator};

fn drafts(seed: u64, count: usize) -> Vec<Draft> {
    Generator::new(seed, 1..=3)
        .take(count)
        .map(|order| Draft::order(&order))
        .collect()
}

/// Other content for the orders of `seed`.
fn changes(seed: u64, count: usize) -> Vec<Draft> {
    Generator::new(seed, 1..=3)
        .take(count)
        .zip(Generator::new(seed + 1000, 1..=3))
        .map(|(order, mut other)| {
            other.order_uid = order.order_uid;
            Draft::order(&other)
        })
        .collect()
}

/// Every replica answers every order as it is, whatever is away.
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

#[test]
fn a_frozen_redis_delays_nothing_and_catches_up() {
    let mut stack = Stack::builder("frozen").workers(2).apis(2).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(101, 100));
    stack.settle();
    stack.check().tiers(&ledger);

    stack.redis.freeze();
    // New orders, and changes to what Redis holds.
    stack.send(&mut ledger, &drafts(102, 100));
    stack.send(&mut ledger, &changes(101, 50));
    let database = stack.database();
    stack.await_orders(200);
    until("everything finished", || match stack.progress() {
        (finished, all) if finished == all => Ok(()),
        (finished, all) => Err(format!("{finished} of {all}")),
    });
    stack.check().postgres(&ledger);
    assert!(
        database.repair_marks() > 0,
        "what Redis has to learn is noted"
    );
    assert_readable(&stack, &ledger);
    for worker in &stack.workers {
        until("Redis is seen to be down", || {
            match worker.state_of("redis") {
                state if state == "down" => Ok(()),
                other => Err(other),
            }
        });
        assert_eq!(worker.admin("/livez").status, 200);
    }
    for api in &stack.apis {
        assert_eq!(api.admin("/readyz").status, 200, "Postgres alone will do");
    }

    stack.redis.thaw();
    stack.settle();
    stack.check().tiers(&ledger);
    assert_readable(&stack, &ledger);
}

#[test]
fn a_redis_that_comes_back_with_older_content_is_put_right() {
    let mut stack = Stack::builder("older").workers(2).apis(2).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(111, 100));
    stack.settle();
    stack.check().tiers(&ledger);
    stack.redis.save();
    // These reach Redis, and are lost with it.
    stack.send(&mut ledger, &changes(111, 60));
    stack.settle();
    stack.check().tiers(&ledger);

    let feed = Feed::of_everything(stack.addresses(), 112);
    stack.redis.crash();
    stack.await_orders(stack.database().count() + 300);
    // Nobody repairs before it was seen what it came back with.
    for worker in &mut stack.workers {
        worker.process.signal(Signal::Stop);
    }
    stack.redis.start_again();
    let restored = entries(&stack.addresses().redis_url).unwrap();
    let newest = ledger.orders();
    let older = restored.iter().filter(|(uid, entry)| {
        let newest = newest.get(*uid).map(|state| state.version.to_string());
        entry.version() < newest
    });
    assert_eq!(older.count(), 60, "Redis came back with older content");
    for worker in &mut stack.workers {
        worker.process.signal(Signal::Continue);
    }
    stack.await_orders(stack.database().count() + 300);
    ledger.append(feed.stop());
    stack.settle();
    let url = stack.addresses().redis_url.clone();
    let orders = ledger.orders();
    until("no entry older than Postgres", || {
        let older = entries(&url).unwrap().into_iter().find(|(uid, entry)| {
            let expected = orders.get(uid).map(|state| state.version.to_string());
            entry.version() != expected
        });
        older.map_or(Ok(()), |(uid, _)| Err(uid))
    });
    stack.check().redis_remains(&ledger);
    stack.check().postgres(&ledger);
    stack.check().dead_letters(&ledger);
    for api in &stack.apis {
        stack.check().api(&ledger, &api.url(), "local");
        stack.check().api_in_postgres(&ledger, &api.url());
    }
}

/// The watermark moves once a second: what was written after its last move is lost with a Redis whose snapshot is not older
/// than that, and the watermark cannot tell.
#[test]
fn a_redis_that_comes_back_with_the_same_watermark_is_put_right() {
    let mut stack = Stack::builder("watermark").workers(1).start();
    let url = stack.addresses().redis_url.clone();
    let version = |uid: &str| entries(&url).unwrap().get(uid).and_then(Entry::version);
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(161, 1));
    stack.settle();
    let uid = ledger.some_uid();
    let newest = |ledger: &Ledger| Some(ledger.orders()[&uid].version.to_string());

    // As often as the watermark moves between the snapshot and the crash.
    let mut rounds = 1..=20;
    loop {
        let round = rounds.next().expect("the watermark moves once a second");
        let old = stack.redis.watermark().unwrap();
        let watermark = until("a watermark that has just moved", || {
            match stack.redis.watermark().unwrap() {
                moved if moved != old => Ok(moved),
                same => Err(format!("{same:?}")),
            }
        });
        stack.redis.save();
        let mut other = Generator::new(162 + round, 1..=3).next().unwrap();
        other.order_uid.clone_from(&uid);
        stack.send(&mut ledger, &[Draft::order(&other)]);
        until("the update in Redis", || match version(&uid) {
            found if found == newest(&ledger) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        // Nobody looks at it before it is back.
        stack.workers[0].process.signal(Signal::Stop);
        if stack.redis.watermark().unwrap() == watermark {
            break;
        }
        stack.workers[0].process.signal(Signal::Continue);
    }
    let lost = newest(&ledger);
    stack.redis.crash();
    stack.redis.start_again();
    assert!(version(&uid) < lost, "Redis came back with older content");
    stack.workers[0].process.signal(Signal::Continue);
    until("the update in Redis again", || match version(&uid) {
        found if found == lost => Ok(()),
        other => Err(format!("{other:?}")),
    });
    stack.check().tiers(&ledger);
}

#[test]
fn a_redis_that_comes_back_empty_is_filled_again() {
    let mut stack = Stack::builder("empty").workers(2).apis(2).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(121, 50));
    stack.settle();
    stack.redis.crash();
    stack.send(&mut ledger, &drafts(122, 50));
    stack.send(&mut ledger, &changes(121, 20));
    stack.await_orders(100);
    assert_readable(&stack, &ledger);
    stack.redis.start_again();
    stack.settle();
    assert_readable(&stack, &ledger);
    stack.send(&mut ledger, &drafts(123, 50));
    stack.settle();
    stack.check().redis_remains(&ledger);
    stack.check().postgres(&ledger);
    stack.check().dead_letters(&ledger);
    for api in &stack.apis {
        stack.check().api(&ledger, &api.url(), "local");
        stack.check().api_in_postgres(&ledger, &api.url());
    }
}

#[test]
fn without_postgres_nothing_is_lost_and_what_is_cached_is_answered() {
    let mut stack = Stack::builder("postgres")
        .private_postgres()
        .variable("DATABASE_TIMEOUT", "1s")
        .workers(2)
        .start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(131, 100));
    stack.settle();
    // What is in Redis is cached, and nothing else.
    stack.start_api_with(&[("DATABASE_TIMEOUT", "1s"), ("LOCAL_CACHE_MAX_BYTES", "0")]);
    let uids: Vec<String> = ledger.orders().into_keys().collect();
    let (cached, uncached) = (&uids[0], &uids[1]);

    for (round, outage) in [(0, Outage::Crash), (1, Outage::Freeze)] {
        stack.redis.evict(uncached);
        outage.begin(&stack);
        let before = stack.progress().0;
        stack.send(&mut ledger, &drafts(132 + round, 200));
        for worker in &stack.workers {
            until("Postgres is seen to be down", || {
                match worker.state_of("postgres") {
                    state if state == "down" => Ok(()),
                    other => Err(other),
                }
            });
        }
        until("a worker that waits for it", || {
            let waits: Vec<String> = stack
                .workers
                .iter()
                .map(|worker| worker.state_of("waiting_for"))
                .collect();
            match waits.iter().all(|waits| waits.contains("postgres")) {
                true => Ok(()),
                false => Err(waits.join("; ")),
            }
        });
        for worker in &stack.workers {
            assert_eq!(
                worker.admin("/livez").status,
                200,
                "waiting is not being stuck"
            );
        }
        let api = &stack.apis[0];
        until("Postgres is seen to be down", || {
            match api.state_of("postgres") {
                state if state == "down" => Ok(()),
                other => Err(other),
            }
        });
        assert_eq!(api.admin("/readyz").status, 200, "Redis alone will do");
        let answer = api.order(cached);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(Some(answer.body), ledger.orders()[cached].json);
        for uid in [uncached.as_str(), "nobody"] {
            let answer = api.order(uid);
            answer.problem(503);
            let seconds = answer.header("Retry-After").expect("Retry-After");
            assert!(
                seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0),
                "{seconds}"
            );
        }
        api.order_in_postgres(cached).problem(503);
        assert_eq!(stack.progress().0, before, "nothing counts as finished");
        let letters = stack.broker().read(&stack.addresses().dead_letter_topic);
        assert!(letters.is_empty(), "nothing is dead-lettered");
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

/// One worker alone is cut off from Redis; the others repair what it could not write.
#[test]
fn workers_repair_what_one_of_them_could_not_write() {
    let mut stack = Stack::builder("cutoff").workers(1).start();
    // Nobody listens at the discard port.
    let deaf = ("REDIS_URL", "redis://127.0.0.1:9");
    stack.launch_worker(&[deaf]);
    let worker = &stack.workers[1];
    let http = Http::new();
    let url = format!("http://{}/readyz", worker.admin_address());
    until("a ready worker", || match http.try_get(&url, &[]) {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(answer.text()),
        Err(error) => Err(error.to_string()),
    });
    let mut ledger = Ledger::default();
    let orders: Vec<Order> = Generator::new(141, 1..=3).take(300).collect();
    let drafts: Vec<Draft> = orders.iter().map(Draft::order).collect();
    stack.send(&mut ledger, &drafts);
    stack.settle();
    assert!(
        stack.workers[1].messages("stored") > 0,
        "the one that is cut off had its share"
    );
    stack.check().tiers(&ledger);
}

#[test]
fn without_kafka_workers_wait_or_end_in_order_and_the_api_answers() {
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
            match worker.state_of("kafka") {
                state if state == "down" => Ok(()),
                other => Err(other),
            }
        });
        assert_eq!(worker.admin("/livez").status, 200);
    }
    assert_eq!(stack.apis[0].admin("/readyz").status, 200);
    assert_readable(&stack, &ledger);
    stack.workers.remove(0).process.terminate();

    stack.kafka().start_again();
    stack.send(&mut ledger, &drafts(152, 100));
    stack.send(&mut ledger, &changes(151, 50));
    stack.settle();
    stack.check().tiers(&ledger);
    assert_readable(&stack, &ledger);
}
