//! Reads of entries as they are.

use std::collections::BTreeSet;

use redis::AsyncCommands;
use shared::{
    cache::{Cache, Cached, Held},
    config,
    order::{OrderUid, Revision},
    testing::{TestCluster, TestRedis, write_until_taken},
};

use super::{document_version, erased, order, revision, uid};

async fn filled(config: &config::Redis) -> Cache {
    let cache = Cache::pooled(config).unwrap();
    let orders: Vec<Revision> = (0..1500)
        .map(|n| erased(&format!("u{n}"), n))
        .chain([revision(&order("full", 1), 7)])
        .collect();
    write_until_taken(&cache, &orders).await;
    cache
}

async fn scanned(cache: &Cache) -> BTreeSet<OrderUid> {
    let (mut scan, mut found) = (cache.scan().await.unwrap(), BTreeSet::new());
    while let Some(uids) = cache.next_uids(&mut scan).await.unwrap() {
        found.extend(uids);
    }
    found
}

/// Checks the reads of a Redis that [`filled`] has filled.
async fn check(cache: &Cache) {
    let found = cache
        .inspect(&[uid("u3"), uid("absent"), uid("full")])
        .await
        .unwrap();
    let entry =
        |offset, document| Held::Entry(Cached::unchecked(document_version(offset), document));
    let document = revision(&order("full", 1), 7).document;
    assert_eq!(found, [entry(3, None), Held::Nothing, entry(7, document)]);
    assert_eq!(cache.inspect(&[]).await.unwrap(), []);
    let all = scanned(cache).await;
    assert_eq!(all.len(), 1501);
    let random = cache.random_uids(10).await.unwrap();
    assert!(!random.is_empty() && random.iter().all(|uid| all.contains(uid)));
}

#[tokio::test]
async fn entries_are_read_as_they_are() {
    let redis = TestRedis::start();
    let cache = filled(&redis.config()).await;
    check(&cache).await;
}

#[tokio::test]
async fn entries_of_every_master_of_a_cluster_are_read() {
    let cluster = TestCluster::start();
    let cache = filled(&cluster.config()).await;
    check(&cache).await;
}

#[tokio::test]
async fn a_key_that_holds_no_entry_is_foreign() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let mut connection = redis.connect().await;
    let _: () = connection.set("order:text", "a text").await.unwrap();
    let _: () = connection
        .hset("order:version", "version", "1")
        .await
        .unwrap();
    let _: () = connection.set("order:~", "no uid").await.unwrap();
    let uids = [uid("text"), uid("version")];
    let found = cache.inspect(&uids).await.unwrap();
    assert_eq!(found, [Held::Foreign, Held::Foreign]);
    assert_eq!(scanned(&cache).await, uids.into());
}

#[tokio::test]
async fn an_older_shape_is_an_entry() {
    let redis = TestRedis::start();
    let [old, new] = [1, 2].map(|shape| {
        Cache::pooled(&redis.config())
            .unwrap()
            .with_representation(shape)
    });
    write_until_taken(&old, &[erased("u", 1)]).await;
    assert_eq!(new.get(&uid("u")).await.unwrap(), None);
    let found = new.inspect(&[uid("u")]).await.unwrap();
    assert!(matches!(found[..], [Held::Entry(_)]), "{found:?}");
}

#[tokio::test]
async fn reading_the_state_writes_nothing() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let probed = cache.probe().await.unwrap();
    let mut connection = redis.connect().await;
    let _: () = redis::cmd("REPLICAOF")
        .arg("localhost")
        .arg(1)
        .query_async(&mut connection)
        .await
        .unwrap();
    let state = cache.state().await.unwrap();
    assert_eq!(state.servers, probed.servers);
    assert_eq!(state.rejects_writes, None);
}
