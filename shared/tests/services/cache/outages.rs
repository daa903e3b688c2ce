//! A Redis that is dead, slow, or rejects writes.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use shared::{
    cache::{Cache, CacheError},
    config,
    testing::{TestRedis, eventually},
};

use super::{order, revision, uid};

#[tokio::test]
async fn a_dead_redis_opens_the_breaker_and_recovery_closes_it() {
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
async fn rejected_writes_are_reported_one_by_one() {
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
            matches!(&result, Err(CacheError::Rejected(code)) if code == "OOM"),
            "{result:?}"
        );
    }
    // Redis rejects writes but still answers reads.
    assert_eq!(cache.get(&uid("a")).await.unwrap(), None);
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
