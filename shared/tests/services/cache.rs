use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::{future::join_all, poll};
use redis::AsyncCommands;
use shared::{
    cache::{Announcement, CHANNEL, Cache, CacheError, Cached, Subscription, WriteOutcome},
    config,
    order::{Revision, Version},
    testing::{TestCluster, TestRedis, eventually, write_until_taken},
};

use super::{order, revision, uid, version};

fn erased(text: &str, offset: i64) -> Revision {
    Revision {
        uid: uid(text),
        version: version(offset),
        document: None,
    }
}

async fn write(cache: &Cache, revision: &Revision) -> WriteOutcome {
    let results = cache
        .write_batch(std::slice::from_ref(revision), Instant::now())
        .await;
    results.into_iter().next().unwrap().unwrap()
}

#[tokio::test]
async fn an_entry_is_a_hash_of_version_and_json_that_expires() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let revision = revision(&order("u", 1), 7);
    assert_eq!(write(&cache, &revision).await, WriteOutcome::Written);
    let mut connection = redis.connect().await;
    let fields: HashMap<String, Vec<u8>> = connection.hgetall("order:u").await.unwrap();
    let expected = HashMap::from([
        (
            "version".to_owned(),
            revision.version.to_string().into_bytes(),
        ),
        (
            "json".to_owned(),
            revision.document.clone().unwrap().to_vec(),
        ),
    ]);
    assert!(fields == expected);
    let ttl: i64 = connection.pttl("order:u").await.unwrap();
    assert!((3_590_000..=3_960_000).contains(&ttl), "{ttl}");
    let cached = Cached {
        version: revision.version,
        document: revision.document,
    };
    assert_eq!(cache.get(&uid("u")).await.unwrap(), Some(cached));
    assert_eq!(cache.get(&uid("other")).await.unwrap(), None);
}

#[tokio::test]
async fn only_a_newer_version_is_written() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let (first, second) = (revision(&order("u", 1), 5), revision(&order("u", 2), 6));
    assert_eq!(write(&cache, &second).await, WriteOutcome::Written);
    assert_eq!(write(&cache, &first).await, WriteOutcome::KeptNewer);
    // An equal version leaves the entry and its time to live unchanged.
    let mut connection = redis.connect().await;
    let _: bool = connection.pexpire("order:u", 1_000_000).await.unwrap();
    assert_eq!(write(&cache, &second).await, WriteOutcome::Unchanged);
    assert!(connection.pttl::<_, i64>("order:u").await.unwrap() <= 1_000_000);
    assert_eq!(
        cache.get(&uid("u")).await.unwrap().unwrap().document,
        second.document
    );

    assert_eq!(write(&cache, &erased("u", 7)).await, WriteOutcome::Written);
    let fields: Vec<String> = connection.hkeys("order:u").await.unwrap();
    assert_eq!(fields, ["version"]);
    assert_eq!(write(&cache, &second).await, WriteOutcome::KeptNewer);
    assert_eq!(
        cache.get(&uid("u")).await.unwrap(),
        Some(Cached {
            version: version(7),
            document: None
        })
    );
}

#[tokio::test]
async fn what_was_read_long_ago_creates_no_entry_but_replaces_an_older_one() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    cache.probe().await.unwrap();
    let revision = revision(&order("u", 1), 5);
    let long_ago = Instant::now()
        .checked_sub(Duration::from_millis(1500))
        .unwrap();
    let late = cache
        .write_batch(std::slice::from_ref(&revision), long_ago)
        .await;
    assert_eq!(
        late.into_iter().next().unwrap().unwrap(),
        WriteOutcome::Late
    );
    assert_eq!(
        cache.fill(&revision, long_ago).await.unwrap(),
        WriteOutcome::Late
    );
    assert_eq!(cache.get(&uid("u")).await.unwrap(), None);

    write(&cache, &erased("u", 4)).await;
    assert_eq!(
        cache.fill(&revision, long_ago).await.unwrap(),
        WriteOutcome::Written
    );
}

#[tokio::test]
async fn what_is_not_ours_under_our_key_is_replaced() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let mut connection = redis.connect().await;
    let _: () = connection.set("order:u", "rubbish").await.unwrap();
    assert!(cache.get(&uid("u")).await.is_err());
    let revision = revision(&order("u", 1), 5);
    assert_eq!(write(&cache, &revision).await, WriteOutcome::Written);
    let _: () = connection.hset("order:u", "version", "zzz").await.unwrap();
    assert!(matches!(
        cache.get(&uid("u")).await,
        Err(CacheError::Corrupt)
    ));
    assert_eq!(write(&cache, &revision).await, WriteOutcome::Written);
    assert!(cache.get(&uid("u")).await.unwrap().is_some());
}

#[tokio::test]
async fn each_entry_of_a_batch_has_its_own_outcome() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let mut connection = redis.connect().await;
    let batch: Vec<Revision> = (0..100)
        .map(|n| match n % 5 {
            4 => erased(&format!("u{n}"), 5),
            _ => revision(&order(&format!("u{n}"), n), 5),
        })
        .collect();
    let mut expected = Vec::new();
    for (n, change) in batch.iter().enumerate() {
        let before = |offset| revision(&order(change.uid.as_str(), 0), offset);
        expected.push(match n % 5 {
            0 => {
                write(&cache, &before(6)).await;
                WriteOutcome::KeptNewer
            }
            1 => {
                write(&cache, change).await;
                WriteOutcome::Unchanged
            }
            2 => {
                let key = format!("order:{}", change.uid);
                let _: () = connection.set(key, "rubbish").await.unwrap();
                WriteOutcome::Written
            }
            3 => WriteOutcome::Written,
            _ => {
                write(&cache, &before(4)).await;
                WriteOutcome::Written
            }
        });
    }
    let results = cache.write_batch(&batch, Instant::now()).await;
    let outcomes: Vec<WriteOutcome> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, expected);
    for (n, change) in batch.iter().enumerate() {
        let cached = cache.get(&change.uid).await.unwrap().unwrap();
        match n % 5 {
            0 => assert_eq!(cached.version, version(6)),
            _ => assert_eq!(
                (cached.version, cached.document),
                (change.version, change.document.clone())
            ),
        }
    }
}

#[tokio::test]
async fn a_batch_is_announced_in_one_message_and_a_fill_only_when_it_was_written() {
    let redis = TestRedis::start();
    let cache = Cache::shared(&redis.config()).unwrap();
    let mut subscription = Subscription::open(&redis.config()).await.unwrap();
    let batch: Vec<Revision> = (0..100)
        .map(|n| revision(&order(&format!("u{n}"), 1), n))
        .collect();
    let results = cache.write_batch(&batch, Instant::now()).await;
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Ok(WriteOutcome::Written)))
    );
    let announced = subscription.next().await.unwrap();
    let expected: Vec<Announcement> = batch
        .iter()
        .map(|revision| Announcement {
            uid: revision.uid,
            version: revision.version,
        })
        .collect();
    assert_eq!(announced, expected);

    assert_eq!(
        cache.fill(&batch[0], Instant::now()).await.unwrap(),
        WriteOutcome::Unchanged
    );
    let newer = revision(&order("u0", 2), 1000);
    assert_eq!(
        cache.fill(&newer, Instant::now()).await.unwrap(),
        WriteOutcome::Written
    );
    let announced = subscription.next().await.unwrap();
    assert_eq!(
        announced,
        [Announcement {
            uid: newer.uid,
            version: newer.version
        }]
    );
}

#[tokio::test]
async fn a_subscription_ends_when_redis_dies_or_falls_silent() {
    let mut redis = TestRedis::start();
    let mut subscription = Subscription::open(&redis.config()).await.unwrap();
    let mut connection = redis.connect().await;
    let receivers: i64 = connection
        .publish(CHANNEL, "rubbish that is passed over")
        .await
        .unwrap();
    assert_eq!(receivers, 1);
    assert_eq!(subscription.next().await.unwrap(), []);
    // A Redis that does not answer for a while, like a frozen process.
    let sleeping = tokio::spawn(async move {
        let _: Result<(), _> = redis::cmd("DEBUG")
            .arg("SLEEP")
            .arg("6")
            .query_async(&mut connection)
            .await;
    });
    assert!(subscription.next().await.is_err());
    sleeping.abort();
    redis.restart();
    let mut subscription = Subscription::open(&redis.config()).await.unwrap();
    redis.kill();
    assert!(subscription.next().await.is_err());
}

#[tokio::test]
async fn a_dead_redis_is_left_alone_and_found_again() {
    let mut redis = TestRedis::start();
    let settings = config::Redis {
        timeout: Duration::from_millis(200),
        ..redis.config()
    };
    for cache in [
        Cache::shared(&settings).unwrap(),
        Cache::pooled(&settings).unwrap(),
    ] {
        assert_eq!(cache.get(&uid("u")).await.unwrap(), None);
        redis.kill();
        eventually("an open breaker", async || {
            matches!(cache.get(&uid("u")).await, Err(CacheError::Open)).then_some(())
        })
        .await;
        redis.restart();
        eventually("an answer", async || cache.get(&uid("u")).await.ok()).await;
    }
}

#[tokio::test]
async fn refused_writes_are_reported_one_by_one() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let mut connection = redis.connect().await;
    cache.probe().await.unwrap();
    let _: () = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory-policy")
        .arg("noeviction")
        .query_async(&mut connection)
        .await
        .unwrap();
    let _: () = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory")
        .arg("1")
        .query_async(&mut connection)
        .await
        .unwrap();
    let batch = [revision(&order("a", 1), 1), revision(&order("b", 1), 1)];
    let results = cache.write_batch(&batch, Instant::now()).await;
    assert_eq!(results.len(), 2);
    for result in results {
        assert!(
            matches!(&result, Err(CacheError::Refused(code)) if code == "OOM"),
            "{result:?}"
        );
    }
    // Redis rejects writes but still answers reads.
    assert_eq!(cache.get(&uid("a")).await.unwrap(), None);
}

#[tokio::test]
async fn the_watermark_moves_only_from_where_it_was_seen() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    assert_eq!(cache.probe().await.unwrap().watermark, None);
    assert!(cache.move_watermark(None, 10).await.unwrap());
    assert!(!cache.move_watermark(None, 20).await.unwrap());
    assert!(!cache.move_watermark(Some(9), 20).await.unwrap());
    cache.begin_bypass().await.unwrap();
    assert!(cache.probe().await.unwrap().bypass);
    assert!(cache.move_watermark(Some(10), 20).await.unwrap());
    let state = cache.probe().await.unwrap();
    assert_eq!((state.watermark, state.bypass), (Some(20), false));
}

#[tokio::test]
async fn clearing_deletes_our_entries_and_nothing_else() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let batch: Vec<Revision> = (0..2500).map(|n| erased(&format!("u{n}"), n)).collect();
    cache.write_batch(&batch, Instant::now()).await;
    cache.move_watermark(None, 1).await.unwrap();
    let mut connection = redis.connect().await;
    let _: () = connection.set("somebody:elses", 1).await.unwrap();
    assert_eq!(cache.clear().await.unwrap(), 2500);
    let mut left: Vec<String> = connection.keys("*").await.unwrap();
    left.sort();
    assert_eq!(left, ["order-cache", "somebody:elses"]);
    assert_eq!(
        cache.eviction_policy().await.unwrap().as_deref(),
        Some("allkeys-lru")
    );
}

#[tokio::test]
async fn a_cluster_is_written_announced_and_cleared_like_a_single_server() {
    let cluster = TestCluster::start();
    let cache = Cache::pooled(&cluster.config()).unwrap();
    let batch: Vec<Revision> = (0..300)
        .map(|n| revision(&order(&format!("u{n}"), 1), n))
        .collect();
    write_until_taken(&cache, &batch).await;
    let mut subscription = Subscription::open(&cluster.config()).await.unwrap();
    let newer: Vec<Revision> = batch
        .iter()
        .map(|old| Revision {
            version: Version::new(1_700_000_000_001, old.version.offset, 0),
            ..old.clone()
        })
        .collect();
    let results = cache.write_batch(&newer, Instant::now()).await;
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Ok(WriteOutcome::Written)))
    );
    // Announcements of the earlier versions may still be on their way between the nodes.
    let mut announced = 0;
    while announced < newer.len() {
        let changes = subscription.next().await.unwrap();
        announced += changes
            .iter()
            .filter(|change| change.version.timestamp_ms == 1_700_000_000_001)
            .count();
    }
    for revision in &newer {
        let cached = cache.get(&revision.uid).await.unwrap().unwrap();
        assert_eq!(
            (cached.version, cached.document),
            (revision.version, revision.document.clone())
        );
    }

    assert_eq!(cache.probe().await.unwrap().servers.len(), 3);
    assert!(cache.move_watermark(None, 1).await.unwrap());
    assert_eq!(cache.clear().await.unwrap(), 300);
    for node in cluster.nodes() {
        let mut connection = node.connect().await;
        let left: Vec<String> = connection.keys("order:*").await.unwrap();
        assert_eq!(left, Vec::<String>::new());
    }
    assert_eq!(
        cache.eviction_policy().await.unwrap().as_deref(),
        Some("allkeys-lru")
    );
}

async fn reads_of(connection: &mut redis::aio::MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO")
        .arg("stats")
        .query_async(connection)
        .await
        .unwrap();
    let count = info
        .lines()
        .find_map(|line| line.strip_prefix("total_reads_processed:"));
    count.unwrap().parse().unwrap()
}

#[tokio::test]
async fn reads_that_are_made_together_go_together_and_each_has_its_own_answer() {
    let redis = TestRedis::start();
    let cache = Cache::shared(&redis.config()).unwrap();
    let batch: Vec<Revision> = (0..200)
        .map(|n| revision(&order(&format!("u{n}"), 1), n))
        .collect();
    for written in cache.write_batch(&batch, Instant::now()).await {
        assert_eq!(written.unwrap(), WriteOutcome::Written);
    }
    let mut connection = redis.connect().await;
    let _: () = connection.set("order:rubbish", "no hash").await.unwrap();
    let uids = batch.iter().map(|revision| revision.uid);
    let uids: Vec<_> = uids.chain([uid("unknown"), uid("rubbish")]).collect();

    let before = reads_of(&mut connection).await;
    let mut answers = join_all(uids.iter().map(|uid| cache.get(uid))).await;
    let reads = reads_of(&mut connection).await - before;
    assert!(reads < 50, "{reads} system calls for {} reads", uids.len());

    assert!(matches!(answers.pop(), Some(Err(CacheError::Refused(code))) if code == "WRONGTYPE"));
    assert_eq!(answers.pop().unwrap().unwrap(), None);
    for (answer, revision) in answers.into_iter().zip(batch) {
        let expected = Cached {
            version: revision.version,
            document: revision.document,
        };
        assert_eq!(answer.unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn whoever_goes_away_leaves_nobody_behind() {
    let redis = TestRedis::start();
    let cache = Cache::shared(&redis.config()).unwrap();
    let (gone, left) = (uid("gone"), uid("left"));
    // The first caller sends the commands of all callers.
    let mut first = Box::pin(cache.get(&gone));
    assert!(poll!(first.as_mut()).is_pending());
    let mut second = Box::pin(cache.get(&left));
    assert!(poll!(second.as_mut()).is_pending());
    drop(first);
    assert_eq!(second.await.unwrap(), None);
}

/// Returns the ids of the open connections of a Redis.
async fn clients(redis: &TestRedis) -> HashSet<String> {
    let list: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(&mut redis.connect().await)
        .await
        .unwrap();
    list.lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn a_slow_command_does_not_cost_the_connection() {
    let redis = TestRedis::start();
    let cache = Cache::shared(&redis.config()).unwrap();
    let before = clients(&redis).await;
    cache.get(&uid("u")).await.unwrap();
    let ours: HashSet<String> = &clients(&redis).await - &before;
    // Longer than one deadline, shorter than two.
    let seconds = redis.config().timeout.as_secs_f64() * 1.5;
    let mut slow = redis.connect().await;
    let sleep = tokio::spawn(async move {
        redis::cmd("DEBUG")
            .arg("SLEEP")
            .arg(seconds)
            .query_async::<()>(&mut slow)
            .await
    });
    eventually("a missed deadline", async || {
        matches!(cache.get(&uid("u")).await, Err(CacheError::Deadline(_))).then_some(())
    })
    .await;
    eventually("an answer", async || cache.get(&uid("u")).await.ok()).await;
    let still_open = clients(&redis).await;
    assert!(
        ours.iter().any(|ours| still_open.contains(ours)),
        "{ours:?} of {still_open:?}"
    );
    drop(sleep);
}
