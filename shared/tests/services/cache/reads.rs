//! Reads that share one connection.

use std::time::Instant;

use futures_util::{future::join_all, poll};
use redis::AsyncCommands;
use shared::{
    cache::{Cache, CacheError, Cached, WriteOutcome},
    order::{DocumentVersion, Revision},
    testing::TestRedis,
};

use super::{order, revision, uid};

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

    assert!(matches!(answers.pop(), Some(Err(CacheError::Rejected(code))) if code == "WRONGTYPE"));
    assert_eq!(answers.pop().unwrap().unwrap(), None);
    for (answer, revision) in answers.into_iter().zip(batch) {
        let expected = Cached {
            version: DocumentVersion::current(revision.version),
            document: revision.document,
        };
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
