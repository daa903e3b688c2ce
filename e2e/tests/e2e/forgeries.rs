//! Forged entries in Redis.

use e2e::{Draft, Ledger, Stack, entries, until};
use shared::order::{Order, sample::Generator};

/// A version that no record has.
const NEWEST: &str = "0009000000000000000-0000000000000000001-0000000000";

/// Returns the order as another record changes it.
fn changed(order: &Order) -> Order {
    let mut change = order.clone();
    change.delivery_service = "changed".into();
    change
}

/// Starts one worker and one api without a local cache, and stores one order.
fn start(name: &'static str, key: Option<&str>) -> (Stack, Ledger, Order) {
    let builder = Stack::builder(name).workers(1).apis(1);
    let builder = builder.variable("LOCAL_CACHE_MAX_BYTES", "0");
    let stack = match key {
        Some(key) => builder.variable("CACHE_MAC_KEY", key),
        None => builder,
    };
    let (stack, mut ledger) = (stack.start(), Ledger::default());
    let order = Generator::new(251, 1..=3).next().unwrap();
    stack.send(&mut ledger, &[Draft::order(&order)]);
    stack.settle();
    stack.check().tiers(&ledger);
    (stack, ledger, order)
}

/// Without a key, the forged document is returned until the order changes.
#[test]
fn a_forged_newer_version_keeps_no_update_out() {
    let (stack, mut ledger, order) = start("forged-newer", None);
    let (uid, api) = (&order.order_uid, &stack.apis[0]);
    let key = format!("order:{uid}");
    stack.redis.command(&["HSET", &key, "version", NEWEST]);
    stack.redis.command(&["PERSIST", &key]);
    let change = changed(&order);
    stack.send(&mut ledger, &[Draft::order(&change)]);
    stack.settle();
    let answer = api.await_source(uid, "redis");
    assert_eq!(answer.body, change.to_json());
    stack.check().tiers(&ledger);
    let replaced = stack.workers[0]
        .admin
        .metric("cache_entries_ahead_total", "");
    assert_eq!(replaced, 1);
    let log = stack.workers[0].process.log();
    assert!(
        log.contains("replaced an entry of Redis that was newer than Postgres"),
        "{log}"
    );
}

#[test]
fn with_a_key_a_forged_entry_is_not_returned() {
    let key = format!("{},{}", "a".repeat(64), "b".repeat(64));
    let (stack, ledger, order) = start("forged-signed", Some(&key));
    let (uid, api) = (&order.order_uid, &stack.apis[0]);
    let held = &entries(&stack.addresses().redis_url).unwrap()[uid.as_str()];
    assert!(held.fields.contains_key("mac"));
    assert_eq!(api.await_source(uid, "redis").body, order.to_json());

    let forged = String::from_utf8(changed(&order).to_json()).unwrap();
    let entry = format!("order:{uid}");
    for version in [NEWEST, &held.version().unwrap()] {
        let set = ["HSET", &entry, "version", version, "json", &forged];
        stack.redis.command(&set);
        let answer = api.order(uid);
        assert_eq!(answer.header("X-Source"), Some("postgres"));
        assert_eq!(answer.body, order.to_json());
        // The read wrote the entry again.
        assert_eq!(api.await_source(uid, "redis").body, order.to_json());
    }
    let rejected = api
        .admin
        .metric("cache_requests_total", "result=\"unverified\"");
    assert_eq!(rejected, 2);
    stack.check().tiers(&ledger);

    // The command reads the key, too. Each worker finds what no request reads.
    stack.redis.command(&["HSET", &entry, "json", &forged]);
    let verified = stack.command("worker", &["verify", "--uid", uid]);
    verified.succeeded();
    until("a worker that counts the entry", || {
        let worker = &stack.workers[0].admin;
        match worker.metric("consistency_checks_total", "result=\"unverified\"") {
            0 => Err("not counted"),
            _ => Ok(()),
        }
    });
}
