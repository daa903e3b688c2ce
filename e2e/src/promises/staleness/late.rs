//! Reads and writes that are overtaken by newer versions.

use std::{panic, thread};

use shared::order::{Order, sample::Generator};

use crate::{
    http::Answer,
    ledger::Ledger,
    promises::Run,
    proxy::Proxy,
    record::Draft,
    redis::{Entry, entries},
    stack::Stack,
    wait::until,
};

/// Longer than a write that meets no entry counts as fresh, in ms.
const STALE_MS: i64 = 1200;

/// For each api: nothing but an announcement makes it forget, and it waits for what is held back.
const API: [(&str, &str); 4] = [
    ("LOCAL_CACHE_TTL", "1h"),
    ("CACHE_WARMUP", "0"),
    ("DATABASE_TIMEOUT", "30s"),
    ("API_REQUEST_TIMEOUT", "30s"),
];

/// An order in two versions, told apart by their track numbers.
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

/// The entry of an order in Redis.
fn entry(stack: &Stack, uid: &str) -> Option<Entry> {
    entries(&stack.addresses().redis_url).unwrap().remove(uid)
}

/// Waits until Redis holds an order as the ledger has it.
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

/// Waits until the last change in Postgres is so old that a write of what was there before comes too late.
#[track_caller]
fn await_age(stack: &Stack) {
    let database = stack.database();
    until("a change that is some time ago", || {
        let age = "SELECT (extract(epoch FROM clock_timestamp() - max(updated_at)) * 1000)::bigint FROM orders";
        match database.number(age) {
            STALE_MS.. => Ok(()),
            age => Err(format!("{age} ms")),
        }
    });
}

/// Reads an order, and does `meanwhile` while `proxy` keeps something of that read back.
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

/// What no worker can write to Redis nobody announces either. Once the api passes such a Redis by, it must not go on with
/// what it has from there.
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

/// Between COMMIT and its answer others may store and cache a newer version, and Redis may evict it: then nothing in Redis
/// tells that what was committed is old by now. Hence its age counts from before COMMIT.
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
    // As another worker would, but that Redis has evicted it already.
    stack.database().execute(
        "UPDATE orders SET source_timestamp_ms = source_timestamp_ms + 1, track_number = 'THE-NEW-VERSION', \
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

/// As [`commit`], when it is the api that writes what it has read.
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

/// The write of an older version is under way while a newer one comes to Redis.
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
    // On the same connection, so behind the write.
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

/// The api reads a row, a newer version is announced, and then the row arrives.
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
        // Announced later: who has heard of this has heard of the order.
        stack.send(&mut ledger, &[Draft::order(&changed)]);
        until("an announcement", || {
            match stack.apis[0].order(&witness.order_uid).body == changed.to_json() {
                true => Ok(()),
                false => Err("not heard"),
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
