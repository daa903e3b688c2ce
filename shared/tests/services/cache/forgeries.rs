//! Forged entries in Redis.

use std::time::Instant;

use redis::{AsyncCommands, Script};
use shared::{
    cache::{Cache, CacheError, Cached, Held, MacKeys, WriteOutcome},
    config,
    order::{DocumentVersion, Revision, Version},
    testing::{TestCluster, TestRedis, write_until_taken},
};

use super::{document_version, erased, order, revision, uid, write};

/// Returns `CACHE_MAC_KEY` with one key for each of `digits`.
fn keys(digits: &str) -> MacKeys {
    let keys: Vec<String> = digits
        .chars()
        .map(|digit| digit.to_string().repeat(64))
        .collect();
    MacKeys::parse(&keys.join(",")).unwrap()
}

/// Returns a cache with these keys; without keys if `digits` is empty.
fn cache(redis: &TestRedis, digits: &str) -> Cache {
    let keys = (!digits.is_empty()).then(|| keys(digits));
    Cache::pooled(&redis.config()).unwrap().with_mac_keys(keys)
}

async fn set<C: AsyncCommands>(redis: &mut C, uid: &str, field: &str, value: &[u8]) {
    let key = format!("order:{uid}");
    let _: i64 = redis.hset(key, field, value).await.unwrap();
}

fn copy(from: &str, to: &str) -> redis::Cmd {
    let mut command = redis::cmd("COPY");
    command.arg(from).arg(to).arg("REPLACE");
    command
}

async fn exists<C: AsyncCommands>(redis: &mut C, uid: &str) -> bool {
    redis.exists(format!("order:{uid}")).await.unwrap()
}

async fn mac(redis: &TestRedis, uid: &str) -> Option<String> {
    let key = format!("order:{uid}");
    redis.connect().await.hget(key, "mac").await.unwrap()
}

/// Returns what no document of the order `u` holds: a script, 20 MB, and another order.
fn other_contents() -> [Vec<u8>; 4] {
    [
        b"<script>alert(1)</script>".to_vec(),
        vec![b'x'; 20 << 20],
        order("other", 1).to_json(),
        Vec::new(),
    ]
}

/// Checks that every content that is not ours is deleted and then written again.
async fn check_other_contents<C: AsyncCommands>(cache: &Cache, redis: &mut C) {
    let revision = revision(&order("u", 1), 7);
    write_until_taken(cache, std::slice::from_ref(&revision)).await;
    for content in other_contents() {
        for many in [false, true] {
            set(redis, "u", "json", &content).await;
            let found = match many {
                true => cache.get_many(&[uid("u")]).await.remove(0),
                false => cache.get(&uid("u")).await,
            };
            assert!(matches!(found, Err(CacheError::Corrupt)), "{found:?}");
            assert!(!exists(redis, "u").await, "{} bytes", content.len());
            assert_eq!(cache.get(&uid("u")).await.unwrap(), None);
            let outcome = cache.fill(&revision, Instant::now()).await.unwrap();
            assert_eq!(outcome, WriteOutcome::Written);
            let found = cache.get(&uid("u")).await.unwrap().unwrap();
            assert_eq!(found.document, revision.document);
        }
    }
}

/// A deadline for 20 MB on a busy machine.
fn patient(mut config: config::Redis) -> config::Redis {
    config.timeout = std::time::Duration::from_secs(30);
    config
}

#[tokio::test]
async fn content_that_is_not_ours_is_dropped() {
    let redis = TestRedis::start();
    let config = patient(redis.config());
    let mut connection = redis.connect().await;
    for cache in [
        Cache::shared(&config).unwrap(),
        Cache::pooled(&config).unwrap(),
        Cache::shared(&config)
            .unwrap()
            .with_mac_keys(Some(keys("a"))),
    ] {
        check_other_contents(&cache, &mut connection).await;
    }
}

#[tokio::test]
async fn content_that_is_not_ours_is_dropped_in_a_cluster() {
    let cluster = TestCluster::start();
    let config = patient(cluster.config());
    let client = redis::cluster::ClusterClient::new(config.url.split(',')).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    for keys in [None, Some(keys("a"))] {
        let cache = Cache::pooled(&config).unwrap().with_mac_keys(keys);
        check_other_contents(&cache, &mut connection).await;
    }
}

#[tokio::test]
async fn another_document_of_the_same_version_is_overwritten() {
    let redis = TestRedis::start();
    let (cache, mut connection) = (cache(&redis, ""), redis.connect().await);
    let written = revision(&order("u", 1), 7);
    assert_eq!(write(&cache, &written).await, WriteOutcome::Written);
    let document = written.document.clone().unwrap();
    let mut same_length = document.to_vec();
    let last = same_length.len() - 3;
    same_length[last] ^= 1;
    for forged in [order("u", 2).to_json(), same_length] {
        set(&mut connection, "u", "json", &forged).await;
        assert_eq!(write(&cache, &written).await, WriteOutcome::Written);
        let found = cache.get(&uid("u")).await.unwrap().unwrap();
        assert_eq!(found.document, written.document);
    }
    // An erased order that can be read, and an order that seems to be erased.
    let gone = erased("gone", 7);
    assert_eq!(write(&cache, &gone).await, WriteOutcome::Written);
    set(&mut connection, "gone", "json", b"").await;
    assert_eq!(write(&cache, &gone).await, WriteOutcome::Written);
    assert_eq!(write(&cache, &gone).await, WriteOutcome::Unchanged);
    let _: i64 = connection.hdel("order:u", "json").await.unwrap();
    assert_eq!(write(&cache, &written).await, WriteOutcome::Written);
}

#[tokio::test]
async fn a_text_that_is_no_version_keeps_no_update_out() {
    let redis = TestRedis::start();
    let (cache, mut connection) = (cache(&redis, ""), redis.connect().await);
    let revision = revision(&order("u", 1), 7);
    let text = document_version(7).to_string();
    for forged in [
        "z".repeat(50),
        text.replace('0', "9"),
        text.replace('-', "~"),
        format!("{text}-256"),
        format!("{text}-0"),
        format!("{text}-02"),
        format!("{text}9"),
    ] {
        set(&mut connection, "u", "version", forged.as_bytes()).await;
        assert_eq!(
            write(&cache, &revision).await,
            WriteOutcome::Written,
            "{forged}"
        );
    }
}

/// Readers may miss their deadline at such an entry, so they cannot drop it.
#[tokio::test]
async fn an_entry_larger_than_any_document_keeps_no_update_out() {
    let redis = TestRedis::start();
    let (cache, mut connection) = (cache(&redis, ""), redis.connect().await);
    let revision = revision(&order("u", 1), 7);
    for (size, offset, expected) in [
        (2 << 20, 8, WriteOutcome::KeptNewer(document_version(8))),
        ((2 << 20) + 1, 8, WriteOutcome::Written),
        ((2 << 20) + 1, 7, WriteOutcome::Written),
    ] {
        let version = document_version(offset).to_string();
        set(&mut connection, "u", "version", version.as_bytes()).await;
        set(&mut connection, "u", "json", &vec![b'x'; size]).await;
        assert_eq!(write(&cache, &revision).await, expected, "{size}, {offset}");
    }
}

#[tokio::test]
async fn an_entry_ahead_of_postgres_is_replaced_if_it_is_still_the_same() {
    let redis = TestRedis::start();
    let cache = cache(&redis, "");
    let (row, other) = (revision(&order("u", 1), 7), revision(&order("u", 2), 99));
    let ahead = document_version(98);
    assert_eq!(write(&cache, &other).await, WriteOutcome::Written);
    let replace = async |ahead| cache.replace(&row, ahead, Instant::now()).await.unwrap();
    let newer = WriteOutcome::KeptNewer(document_version(99));
    assert_eq!(write(&cache, &row).await, newer);
    assert_eq!(replace(ahead).await, newer);
    assert_eq!(replace(document_version(99)).await, WriteOutcome::Written);
    let found = cache.get(&uid("u")).await.unwrap().unwrap();
    assert_eq!(
        (found.version, found.document),
        (document_version(7), row.document.clone())
    );
}

/// Forgeries of the order `u` in version 7. With the key, no reader uses them.
async fn forge(redis: &TestRedis, nth: usize, entries: &[Revision; 3]) {
    let mut connection = redis.connect().await;
    let (newer, json) = (
        Version {
            timestamp_ms: i64::MAX,
            ..entries[0].version
        },
        "json",
    );
    let newer = DocumentVersion::current(newer).to_string();
    match nth {
        0 => set(&mut connection, "u", json, &order("u", 2).to_json()).await,
        1 => set(&mut connection, "u", "version", newer.as_bytes()).await,
        2 => connection.hdel("order:u", json).await.unwrap(),
        3 => connection.hdel("order:u", "mac").await.unwrap(),
        4 => set(&mut connection, "u", "mac", b"").await,
        5 => set(&mut connection, "u", "mac", "0".repeat(64).as_bytes()).await,
        // The erasure of another order, with its own MAC.
        _ => {
            let copied = copy("order:gone", "order:u");
            let _: i64 = copied.query_async(&mut connection).await.unwrap();
        }
    }
}

#[tokio::test]
async fn with_a_key_only_what_it_signed_is_read() {
    let redis = TestRedis::start();
    let cache = cache(&redis, "a");
    let entries = [
        revision(&order("u", 1), 7),
        revision(&order("v", 1), 7),
        erased("gone", 7),
    ];
    for nth in 0..7 {
        for revision in &entries {
            cache.fill(revision, Instant::now()).await.unwrap();
            let expected = Cached::unchecked(document_version(7), revision.document.clone());
            assert_eq!(cache.get(&revision.uid).await.unwrap(), Some(expected));
        }
        for many in [false, true] {
            forge(&redis, nth, &entries).await;
            let held = cache.inspect(&[uid("u")]).await.unwrap();
            assert_eq!(held, [Held::Unverified], "{nth}");
            let found = match many {
                true => cache.get_many(&[uid("u"), uid("v")]).await.remove(0),
                false => cache.get(&uid("u")).await,
            };
            assert!(
                matches!(found, Err(CacheError::Unverified)),
                "{nth}: {found:?}"
            );
            let left = cache.get(&uid("u")).await.unwrap();
            assert_eq!(left, None, "{nth}");
            // The forged version no longer keeps the real one out.
            let outcome = cache.fill(&entries[0], Instant::now()).await.unwrap();
            assert_eq!(outcome, WriteOutcome::Written, "{nth}");
        }
    }
}

/// A MAC shows who wrote an entry, not that it is the newest one (docs/security.md).
#[tokio::test]
async fn an_older_genuine_entry_verifies() {
    let redis = TestRedis::start();
    let cache = cache(&redis, "a");
    let mut connection = redis.connect().await;
    write(&cache, &revision(&order("u", 1), 7)).await;
    let _: i64 = copy("order:u", "kept")
        .query_async(&mut connection)
        .await
        .unwrap();
    write(&cache, &revision(&order("u", 2), 8)).await;
    let _: i64 = copy("kept", "order:u")
        .query_async(&mut connection)
        .await
        .unwrap();
    let found = cache.get(&uid("u")).await.unwrap().unwrap();
    assert_eq!(found.version, document_version(7));
}

/// The steps of docs/security.md to switch the MAC on. In each of them, some processes still run as
/// before.
#[tokio::test]
async fn a_key_is_switched_on_and_off_while_other_processes_have_none() {
    let redis = TestRedis::start();
    let (off, on) = (cache(&redis, ""), cache(&redis, "a"));
    let (first, second) = (revision(&order("u", 1), 7), revision(&order("u", 2), 8));
    assert_eq!(write(&off, &first).await, WriteOutcome::Written);
    // A worker with the key signs the entry of one without.
    assert_eq!(write(&on, &first).await, WriteOutcome::Written);
    assert_eq!(write(&on, &first).await, WriteOutcome::Unchanged);
    let read = async |cache: &Cache| {
        cache
            .get(&uid("u"))
            .await
            .map(|entry| entry.unwrap().document)
    };
    assert_eq!(read(&on).await.unwrap(), first.document);
    assert_eq!(read(&off).await.unwrap(), first.document);
    // A process without the key leaves the MAC of an equal entry.
    assert_eq!(write(&off, &first).await, WriteOutcome::Unchanged);
    assert_eq!(read(&on).await.unwrap(), first.document);
    // What it writes has none. A reader with the key reads Postgres, and its fill signs.
    assert_eq!(write(&off, &second).await, WriteOutcome::Written);
    assert_eq!(mac(&redis, "u").await, None);
    assert!(matches!(read(&on).await, Err(CacheError::Unverified)));
    on.fill(&second, Instant::now()).await.unwrap();
    assert_eq!(read(&on).await.unwrap(), second.document);
    assert_eq!(read(&off).await.unwrap(), second.document);
}

/// In each step, processes of the step before and of this one share the entries.
#[tokio::test]
async fn a_key_is_replaced_without_an_entry_that_does_not_verify() {
    let redis = TestRedis::start();
    let steps = ["a", "ab", "ba", "b"].map(|digits| cache(&redis, digits));
    let mut offset = 0;
    for pair in steps.windows(2) {
        for writer in pair {
            offset += 1;
            for revision in [revision(&order("u", 1), offset), erased("gone", offset)] {
                assert_eq!(write(writer, &revision).await, WriteOutcome::Written);
                for reader in pair {
                    let found = reader.get(&revision.uid).await.unwrap().unwrap();
                    assert_eq!(found.document, revision.document);
                }
            }
        }
    }
    // An entry with the MAC of the old key is signed again.
    let revision = revision(&order("u", 1), offset + 1);
    assert_eq!(write(&steps[0], &revision).await, WriteOutcome::Written);
    assert_eq!(write(&steps[2], &revision).await, WriteOutcome::Written);
    assert!(steps[3].get(&revision.uid).await.unwrap().is_some());
    assert!(matches!(
        steps[0].get(&revision.uid).await,
        Err(CacheError::Unverified)
    ));
}

/// A reader deletes what it has seen, and nothing that another process wrote meanwhile.
#[tokio::test]
async fn an_entry_that_has_changed_is_not_dropped() {
    let redis = TestRedis::start();
    let mut connection = redis.connect().await;
    let script = Script::new(include_str!("../../../src/cache/drop_entry.lua"));
    for (seen, dropped) in [
        (("v", "2", Some("m")), 1),
        (("v", "2", None), 1),
        (("w", "2", Some("m")), 0),
        (("v", "3", Some("m")), 0),
        (("v", "2", Some("n")), 0),
        (("v", "2", Some("")), 0),
    ] {
        for (field, value) in [("version", "v"), ("json", "{}"), ("mac", "m")] {
            set(&mut connection, "u", field, value.as_bytes()).await;
        }
        let (version, length, mac) = seen;
        let mut invocation = script.key("order:u");
        invocation.arg(version).arg(length);
        if let Some(mac) = mac {
            invocation.arg(mac);
        }
        let found: i64 = invocation.invoke_async(&mut connection).await.unwrap();
        assert_eq!(found, dropped, "{seen:?}");
    }
}
