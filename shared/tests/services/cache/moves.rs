//! A Redis whose address moves to another server, and a Redis that rejects commands of a write.

use std::time::Instant;

use shared::{
    cache::{Cache, CacheError, Subscription, WriteOutcome, acl},
    config,
    grants::Names,
    testing::{MovingRedis, TestRedis, eventually},
};

use super::{order, revision, uid};

/// The old server becomes a replica of the new one and keeps its connections, as in most failovers.
#[tokio::test]
async fn a_rejection_by_a_replica_closes_the_connection() {
    let (old, new) = (TestRedis::start(), TestRedis::start());
    let name = MovingRedis::to(&old);
    let config = name.config(old.config());
    let caches = [
        Cache::shared(&config).unwrap(),
        Cache::pooled(&config).unwrap(),
    ];
    for cache in &caches {
        cache.probe().await.unwrap();
    }
    old.replicate(Some(&new)).await;
    let before = caches[0].probe().await.unwrap();
    let why = before.rejects_writes.unwrap();
    assert!(why.starts_with("READONLY"), "{why}");
    name.move_to(&new);
    for (n, cache) in (0..).zip(&caches) {
        let revision = revision(&order("u", 1), n);
        eventually("a write to the new server", async || {
            let results = cache
                .write_batch(std::slice::from_ref(&revision), Instant::now())
                .await;
            matches!(results[0], Ok(WriteOutcome::Written)).then_some(())
        })
        .await;
        let state = cache.probe().await.unwrap();
        assert_ne!(state.servers, before.servers);
        assert_eq!(state.rejects_writes, None);
    }
}

/// A replica that has lost its master and is configured to reject reads of stale data.
#[tokio::test]
async fn a_rejected_read_closes_the_connection_too() {
    let (mut master, old, new) = (TestRedis::start(), TestRedis::start(), TestRedis::start());
    let name = MovingRedis::to(&old);
    let cache = Cache::shared(&name.config(old.config())).unwrap();
    assert_eq!(cache.get(&uid("u")).await.unwrap(), None);
    old.replicate(Some(&master)).await;
    let mut connection = old.connect().await;
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "replica-serve-stale-data", "no"])
        .query_async(&mut connection)
        .await
        .unwrap();
    master.kill();
    eventually("a rejected read", async || {
        match cache.get(&uid("u")).await {
            Err(CacheError::Rejected(code)) => {
                assert_eq!(code, "MASTERDOWN");
                Some(())
            }
            _ => None,
        }
    })
    .await;
    name.move_to(&new);
    eventually("an answer of the new server", async || {
        cache.get(&uid("u")).await.ok()
    })
    .await;
}

#[tokio::test]
async fn other_rejections_keep_the_connections() {
    let (old, new) = (TestRedis::start(), TestRedis::start());
    let name = MovingRedis::to(&old);
    let cache = Cache::shared(&name.config(old.config())).unwrap();
    let before = cache.probe().await.unwrap().servers;
    name.move_to(&new);
    let mut connection = old.connect().await;
    for (setting, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", "1")] {
        let _: () = redis::cmd("CONFIG")
            .arg(&["SET", setting, value])
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    for _ in 0..3 {
        let state = cache.probe().await.unwrap();
        assert_eq!(state.servers, before);
        let why = state.rejects_writes.unwrap();
        assert!(why.starts_with("OOM"), "{why}");
    }
    cache.renew();
    assert_ne!(cache.probe().await.unwrap().servers, before);
}

#[tokio::test]
async fn a_probe_names_the_right_that_a_write_lacks() {
    let redis = TestRedis::start();
    for (n, (rules, missing)) in [
        ("~order:* ~order-cache &order-changes +@all", None),
        (
            "~order:* ~order-cache &order-changes +@all -@scripting",
            Some("script|load"),
        ),
        (
            "~order:* ~order-cache &order-changes +@all -evalsha",
            Some("evalsha"),
        ),
        ("~order-cache &order-changes +@all", Some("key")),
        (
            "~order:* ~order-cache resetchannels +@all",
            Some("(PUBLISH)"),
        ),
        (
            "~order:* ~order-cache &order-changes +@all -pexpire",
            Some("(PEXPIRE)"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let config = redis.user(&format!("user{n}"), rules).await;
        for cache in [
            Cache::shared(&config).unwrap(),
            Cache::pooled(&config).unwrap(),
        ] {
            let found = cache.probe().await.unwrap().rejects_writes;
            match (missing, &found) {
                (None, None) => {}
                (Some(missing), Some(why)) => assert!(why.contains(missing), "{rules}: {why}"),
                _ => panic!("{rules}: {found:?}"),
            }
        }
    }
    let mut connection = redis.connect().await;
    let left: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, Vec::<String>::new());
}

/// Returns the rules of the line that `worker grants` prints for a user, and the configuration that
/// uses them.
async fn least(redis: &TestRedis, names: &Names, name: &str) -> config::Redis {
    let text = acl(names, false, false);
    let rules = text.lines().find_map(|line| {
        let (user, rules) = line.strip_prefix("user ")?.split_once(' ')?;
        (user == name).then_some(rules)
    });
    redis.user(name, rules.unwrap()).await
}

/// What Redis denied.
async fn denials(redis: &TestRedis) -> Vec<redis::Value> {
    let mut connection = redis.connect().await;
    let mut log = redis::cmd("ACL");
    log.arg("LOG").query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn the_rights_of_each_user_are_enough() {
    let redis = TestRedis::start();
    let [migrate, worker, api, operator] = ["m", "w", "a", "o"].map(str::to_owned);
    let names = Names {
        migrate,
        worker,
        api,
        operator,
    };
    let worker = least(&redis, &names, "w").await;
    let api = least(&redis, &names, "a").await;
    let operator = least(&redis, &names, "o").await;
    let revision = revision(&order("u", 1), 1);
    let mut subscription = Subscription::open(&api).await.unwrap();
    let worker = Cache::pooled(&worker).unwrap();
    assert_eq!(worker.probe().await.unwrap().rejects_writes, None);
    let results = worker
        .write_batch(std::slice::from_ref(&revision), Instant::now())
        .await;
    assert_eq!(*results[0].as_ref().unwrap(), WriteOutcome::Written);
    assert_eq!(worker.inspect(&[uid("u")]).await.unwrap().len(), 1);
    assert!(worker.random_uids(100).await.unwrap().contains(&uid("u")));
    let moved = worker.move_watermark(None, shared::DatabaseTime(1)).await;
    assert!(moved.unwrap());
    worker.begin_bypass().await.unwrap();
    let policy = worker.eviction_policy().await.unwrap();
    assert_eq!(policy.as_deref(), Some("allkeys-lru"));

    let api = Cache::shared(&api).unwrap();
    let state = api.probe().await.unwrap();
    assert_eq!((state.rejects_writes, state.bypass), (None, true));
    assert!(api.get(&uid("u")).await.unwrap().is_some());
    let filled = api.fill(&revision, Instant::now()).await;
    assert_eq!(filled.unwrap(), WriteOutcome::Unchanged);
    assert_eq!(denials(&redis).await, []);
    assert!(api.begin_bypass().await.is_err(), "the api writes no state");

    let operator = Cache::pooled(&operator).unwrap();
    assert_eq!(operator.state().await.unwrap().watermark, state.watermark);
    assert_eq!(operator.inspect(&[uid("u")]).await.unwrap().len(), 1);
    assert_eq!(operator.remove_all().await.unwrap(), 1);
    while subscription.next().await.is_ok() {}
}
