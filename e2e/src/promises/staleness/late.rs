//! Reads and writes that newer versions overtake.

use std::{panic, thread};

use shared::order::{Order, sample::Generator};

use crate::{
    http::Answer,
    ledger::Ledger,
    promises::run::Run,
    proxy::Proxy,
    record::Draft,
    redis::{Entry, entries},
    stack::Stack,
    wait::until,
};

/// Age at which Redis no longer accepts a write for an order without an entry, with a margin, in
/// ms.
const STALE_MS: i64 = 1200;

/// Settings of each api: it forgets only because of an announcement, and it waits for held data.
const API: [(&str, &str); 4] = [
    ("LOCAL_CACHE_TTL", "1h"),
    ("CACHE_WARMUP", "0"),
    ("DATABASE_TIMEOUT", "30s"),
    ("API_REQUEST_TIMEOUT", "30s"),
];

/// Two versions of an order that differ in their track numbers.
struct Versions {
    old: Order,
    new: Order,
    uid: String,
}

impl Versions {
    fn new(seed: u64) -> Self {
        let mut orders = Generator::new(seed, 1..=3);
        let (mut old, mut new) = (orders.next().unwrap(), orders.next().unwrap());
        old.track_number = "THE-OLD-VERSION".into();
        new.track_number = "THE-NEW-VERSION".into();
        new.order_uid.clone_from(&old.order_uid);
        let uid = old.order_uid.to_string();
        Self { old, new, uid }
    }
}

/// Returns the entry of an order in Redis.
fn entry(stack: &Stack, uid: &str) -> Option<Entry> {
    entries(&stack.addresses().redis_url).unwrap().remove(uid)
}

/// Waits until Redis holds the order's newest version in the ledger.
#[track_caller]
fn await_newest(stack: &Stack, ledger: &Ledger, uid: &str) {
    let newest = ledger.orders()[uid].version.to_string();
    until("the newest version in Redis", || {
        match entry(stack, uid).and_then(|entry| entry.version()) {
            Some(version) if version == newest => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Waits until the last change in Postgres is so old that a write of the state before it is too
/// late.
#[track_caller]
fn await_age(stack: &Stack) {
    let database = stack.database();
    until("a change that is some time ago", || {
        let age = "SELECT (extract(epoch FROM clock_timestamp() - max(updated_at)) * \
                   1000)::bigint FROM orders";
        match database.number(age) {
            STALE_MS.. => Ok(()),
            age => Err(format!("{age} ms")),
        }
    });
}

/// Reads an order, and runs `meanwhile` while `proxy` holds data of that read.
fn read_held(stack: &Stack, proxy: &Proxy, uid: &str, meanwhile: impl FnOnce()) -> Answer {
    thread::scope(|scope| {
        let reader = scope.spawn(|| stack.apis[0].order(uid));
        until("something that is kept back", || match proxy.holds() {
            true => Ok(()),
            false => Err("nothing"),
        });
        meanwhile();
        proxy.restore();
        reader
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// An update that no worker can write to Redis is not announced either. When the api starts to
/// bypass such a Redis, it must drop local entries that came from it.
pub(super) fn unreachable(run: &mut Run) {
    let mut stack = run.stack("unreachable").start();
    let redis = stack.addresses().redis_url.clone();
    let link = Proxy::to(&redis);
    stack.start_worker_with(&[("REDIS_URL", &link.url(&redis))]);
    stack.start_api_with(&API);
    let versions = Versions::new(run.seed);
    let uid = &versions.uid;
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &[Draft::order(&versions.old)]);
    await_newest(&stack, &ledger, uid);
    stack.apis[0].await_source(uid, "local");

    link.cut();
    stack.send(&mut ledger, &[Draft::order(&versions.new)]);
    stack.await_answers(&ledger);
    link.restore();
    stack.settle();
    stack.await_redis(&ledger);
    stack.check().tiers(&ledger);
    stack.check().api(&ledger, &stack.apis[0].url(), "local");
}

/// Between COMMIT and its answer another worker may store and cache a newer version, and Redis may
/// evict it. Redis then holds no sign that the committed version is old. Therefore its age counts
/// from before COMMIT.
pub(super) fn commit(run: &mut Run) {
    let mut stack = run.stack("late-commit").start();
    let proxy = Proxy::to(&stack.addresses().database_url);
    let url = proxy.url(&stack.addresses().database_url);
    stack.start_worker_with(&[("DATABASE_URL", &url), ("DATABASE_TIMEOUT", "30s")]);
    let versions = Versions::new(run.seed);
    let uid = &versions.uid;

    proxy.hold_commits();
    stack.send(&mut Ledger::default(), &[Draft::order(&versions.old)]);
    stack.await_orders(1);
    // Like a write of another worker whose entry Redis has already evicted.
    stack.database().execute(
        "UPDATE orders SET source_timestamp_ms = source_timestamp_ms + 1, \
         track_number = 'THE-NEW-VERSION', \
         updated_at = clock_timestamp()",
    );
    let newest = stack.database().order(uid).version.to_string();
    await_age(&stack);
    proxy.restore();

    let entry = until("an entry in Redis", || entry(&stack, uid).ok_or("none"));
    assert_eq!(
        entry.version(),
        Some(newest),
        "a late write put an old version into Redis"
    );
    let json = String::from_utf8_lossy(entry.json().unwrap()).into_owned();
    assert!(json.contains("THE-NEW-VERSION"), "{json}");
}

/// Like [`commit`], but the api writes a row that it has read.
pub(super) fn fill(run: &mut Run) {
    let mut stack = run.stack("late-fill").workers(1).start();
    let proxy = Proxy::to(&stack.addresses().database_url);
    let url = proxy.url(&stack.addresses().database_url);
    stack.start_api_with(&[&API[..], &[("DATABASE_URL", &url)]].concat());
    let versions = Versions::new(run.seed);
    let uid = &versions.uid;
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &[Draft::order(&versions.old)]);
    await_newest(&stack, &ledger, uid);
    stack.redis.evict(uid);

    proxy.hold(versions.old.track_number.as_bytes());
    read_held(&stack, &proxy, uid, || {
        stack.send(&mut ledger, &[Draft::order(&versions.new)]);
        await_newest(&stack, &ledger, uid);
        stack.redis.evict(uid);
        await_age(&stack);
    });
    let filled = "cache_operation_duration_seconds_count{operation=\"fill\"";
    until("a fill that was tried", || {
        let metrics = stack.apis[0].admin.get("/metrics").text();
        match metrics.lines().any(|line| line.starts_with(filled)) {
            true => Ok(()),
            false => Err(metrics),
        }
    });
    let entry = entry(&stack, uid).and_then(|entry| entry.version());
    assert_eq!(entry, None, "a late fill put an old version into Redis");
    stack.await_answers(&ledger);
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
}

/// The write of an older version is in flight while a newer one arrives at Redis.
pub(super) fn write(run: &mut Run) {
    let mut stack = run.stack("overtaken-write").workers(1).start();
    let redis = stack.addresses().redis_url.clone();
    let proxy = Proxy::to(&redis);
    stack.start_api_with(&[&API[..], &[("REDIS_URL", &proxy.url(&redis))]].concat());
    let versions = Versions::new(run.seed);
    let uid = &versions.uid;
    let other = Generator::new(run.seed + 1, 1..=3).next().unwrap();
    let mut ledger = Ledger::default();
    stack.send(
        &mut ledger,
        &[Draft::order(&versions.old), Draft::order(&other)],
    );
    stack.settle();
    stack.redis.evict(uid);

    proxy.hold(versions.old.track_number.as_bytes());
    let answer = read_held(&stack, &proxy, uid, || {
        stack.send(&mut ledger, &[Draft::order(&versions.new)]);
        await_newest(&stack, &ledger, uid);
    });
    assert_eq!(
        answer.body,
        versions.old.to_json(),
        "it was read before the change"
    );
    // On the same connection, so it arrives after the write.
    stack.apis[0].await_source(&other.order_uid, "redis");
    let entry = entry(&stack, uid).and_then(|entry| entry.version());
    let newest = ledger.orders()[uid].version.to_string();
    assert_eq!(
        entry,
        Some(newest),
        "an older version replaced a newer one in Redis"
    );
    stack.await_answers(&ledger);
    stack.check().tiers(&ledger);
}

/// A newer version is announced while the api reads a row.
pub(super) fn load(run: &mut Run) {
    let mut stack = run.stack("overtaken-load").workers(1).start();
    let proxy = Proxy::to(&stack.addresses().database_url);
    let url = proxy.url(&stack.addresses().database_url);
    stack.start_api_with(&[&API[..], &[("DATABASE_URL", &url)]].concat());
    let versions = Versions::new(run.seed);
    let uid = &versions.uid;
    let mut others = Generator::new(run.seed + 1, 1..=3);
    let (witness, mut changed) = (others.next().unwrap(), others.next().unwrap());
    changed.order_uid.clone_from(&witness.order_uid);
    let mut ledger = Ledger::default();
    stack.send(
        &mut ledger,
        &[Draft::order(&versions.old), Draft::order(&witness)],
    );
    stack.settle();
    stack.apis[0].await_source(&witness.order_uid, "local");
    stack.redis.evict(uid);

    proxy.hold(versions.old.track_number.as_bytes());
    let answer = read_held(&stack, &proxy, uid, || {
        stack.send(&mut ledger, &[Draft::order(&versions.new)]);
        await_newest(&stack, &ledger, uid);
        // Announced after the newest version: an api that received this announcement has also
        // received the earlier one.
        stack.send(&mut ledger, &[Draft::order(&changed)]);
        until("an announcement", || {
            match stack.apis[0].order(&witness.order_uid).body == changed.to_json() {
                true => Ok(()),
                false => Err("not received"),
            }
        });
    });
    assert_eq!(
        answer.body,
        versions.old.to_json(),
        "it was read before the change"
    );
    let answer = stack.apis[0].order(uid);
    assert_eq!(
        answer.text(),
        String::from_utf8_lossy(&versions.new.to_json()),
        "a load that was overtaken was kept"
    );
    stack.check().tiers(&ledger);
    stack.check().api(&ledger, &stack.apis[0].url(), "local");
}
