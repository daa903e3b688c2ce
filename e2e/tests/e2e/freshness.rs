//! A worker that learns late what it has done.

use e2e::{Draft, Ledger, Proxy, Stack, entries, until};
use shared::order::sample::Generator;

/// Longer than a write that meets no entry counts as fresh, in ms.
const STALE_MS: i64 = 1200;

/// Between COMMIT and its answer others may store and cache a newer version, and Redis may evict it: then nothing in Redis
/// tells that what was committed is old by now. Hence its age counts from before COMMIT.
#[test]
fn a_commit_that_is_answered_late_puts_nothing_old_into_redis() {
    let mut stack = Stack::builder("late").start();
    let proxy = Proxy::to(&stack.addresses().database_url);
    let url = proxy.url(&stack.addresses().database_url);
    stack.start_worker_with(&[("DATABASE_URL", &url), ("DATABASE_TIMEOUT", "30s")]);
    let database = stack.database();
    let order = Generator::new(171, 1..=3).next().unwrap();
    let uid = order.order_uid.clone();

    proxy.hold_commits();
    stack.send(&mut Ledger::default(), &[Draft::order(&order)]);
    stack.await_orders(1);
    // As another worker would, but that Redis has evicted it already.
    database.execute(
        "UPDATE orders SET source_timestamp_ms = source_timestamp_ms + 1, track_number = 'NEWER', \
         updated_at = clock_timestamp()",
    );
    let newest = database.order(&uid).version.to_string();
    until("an answer that is late", || {
        let age = "SELECT (extract(epoch FROM clock_timestamp() - updated_at) * 1000)::bigint FROM orders";
        match database.number(age) {
            STALE_MS.. => Ok(()),
            age => Err(format!("{age} ms")),
        }
    });
    proxy.restore();

    let redis = stack.addresses().redis_url.clone();
    let entry = until("an entry in Redis", || {
        entries(&redis).unwrap().remove(&uid).ok_or("none")
    });
    assert_eq!(entry.version(), Some(newest));
    let json = String::from_utf8_lossy(entry.json().unwrap()).into_owned();
    assert!(json.contains("\"NEWER\""), "{json}");
}
