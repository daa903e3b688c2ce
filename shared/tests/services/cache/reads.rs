//! Reads that share one connection.

use std::time::Instant;

use futures_util::{future::join_all, poll};
use redis::AsyncCommands;
use shared::{
    cache::{Cache, CacheError, Cached, WriteOutcome},
    order::{DocumentVersion, Revision},
    testing::TestRedis,
};

use super::{document_version, erased, order, revision, uid};

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
async fn concurrent_reads_share_pipelines_and_each_gets_its_own_reply() {
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

    assert!(matches!(answers.pop(), Some(Err(CacheError::Corrupt))));
    assert_eq!(answers.pop().unwrap().unwrap(), None);
    for (answer, revision) in answers.into_iter().zip(batch) {
        let version = DocumentVersion::current(revision.version);
        let expected = Cached::unchecked(version, revision.document);
        assert_eq!(answer.unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn a_cancelled_read_does_not_affect_the_others() {
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

#[tokio::test]
async fn many_entries_are_read_at_once_and_each_has_its_own_result() {
    let redis = TestRedis::start();
    for cache in [
        Cache::shared(&redis.config()).unwrap(),
        Cache::pooled(&redis.config()).unwrap(),
    ] {
        let mut connection = redis.connect().await;
        let stored = revision(&order("stored", 1), 5);
        cache
            .write_batch(&[stored.clone(), erased("gone", 6)], Instant::now())
            .await;
        let _: () = connection.set("order:text", "rubbish").await.unwrap();
        let _: () = connection.hset("order:odd", "version", "x").await.unwrap();
        let uids = ["missing", "text", "stored", "odd", "gone"].map(uid);
        let entries = cache.get_many(&uids).await;
        let [missing, text, found, odd, gone] = entries.try_into().unwrap();
        assert_eq!(missing.unwrap(), None);
        assert!(matches!(text, Err(CacheError::Corrupt)), "{text:?}");
        assert_eq!(found.unwrap().unwrap().document, stored.document);
        assert!(matches!(odd, Err(CacheError::Corrupt)), "{odd:?}");
        let gone = gone.unwrap().unwrap();
        assert_eq!((gone.version, gone.document), (document_version(6), None));
    }
}

#[tokio::test]
async fn many_entries_cost_one_round_trip() {
    let redis = TestRedis::start();
    let cache = Cache::shared(&redis.config()).unwrap();
    let uids: Vec<_> = (0..100).map(|n| uid(&format!("u{n}"))).collect();
    // The first read opens the connection.
    assert_eq!(cache.get(&uids[0]).await.unwrap(), None);
    let mut connection = redis.connect().await;
    let before = reads_of(&mut connection).await;
    let entries = cache.get_many(&uids).await;
    let reads = reads_of(&mut connection).await - before;
    assert!(entries.iter().all(|entry| matches!(entry, Ok(None))));
    // One is the read of the statistics.
    assert!(reads <= 3, "{reads} system calls for one pipeline");
}

#[tokio::test]
async fn a_dead_redis_fails_every_entry_of_a_read() {
    let mut redis = TestRedis::start();
    let cache = Cache::shared(&redis.config()).unwrap();
    redis.kill();
    let entries = cache.get_many(&["a", "b"].map(uid)).await;
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(Result::is_err), "{entries:?}");
}
