//! The api as a client sees it, where the test controls the start and Redis. The other tests are in
//! `tests/black_box`.

use e2e::{Draft, Http, Ledger, Stack};
use shared::order::sample::Generator;

fn orders(seed: u64, count: usize) -> Vec<Draft> {
    Generator::new(seed, 1..=3)
        .take(count)
        .map(|order| Draft::order(&order))
        .collect()
}

#[test]
fn the_nearest_tier_with_the_order_answers() {
    let mut stack = Stack::builder("http").workers(1).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &orders(41, 3));
    stack.settle();
    let uid = ledger.some_uid();
    let json = ledger.orders()[&uid].json.clone().unwrap();
    for _ in 0..2 {
        // Without warmup, because the local cache would answer warmed orders at once.
        stack.start_api_with(&[("CACHE_WARMUP", "0")]);
    }
    let (one, other) = (&stack.apis[0], &stack.apis[1]);

    let first = one.order(&uid);
    assert_eq!((first.status, first.source()), (200, "redis"));
    assert_eq!(first.header("Content-Type"), Some("application/json"));
    one.await_source(&uid, "local");
    assert_eq!(one.order_in_postgres(&uid).source(), "postgres");
    one.await_source(&uid, "local");

    stack.redis.evict(&uid);
    let missed = other.order(&uid);
    assert_eq!(missed.source(), "postgres");
    other.await_source(&uid, "local");
    assert_eq!(missed.body, json);
    assert_eq!(missed.header("ETag"), first.header("ETag"));
    // The replica that missed the entry has put it back.
    stack.check().redis(&ledger);

    // A gateway would reject this itself.
    Http::new()
        .get(&format!("{}/order/%00", one.url()))
        .problem(400);
}
