//! A Redis Cluster.

use std::time::Instant;

use redis::AsyncCommands;
use shared::{
    DatabaseTime,
    cache::{Cache, Subscription, WriteOutcome},
    order::{Revision, Version},
    testing::{TestCluster, write_until_taken},
};

use super::{order, revision};

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
            (cached.version.version, cached.document),
            (revision.version, revision.document.clone())
        );
    }
    let uids: Vec<_> = newer.iter().map(|revision| revision.uid).collect();
    let many = cache.get_many(&uids).await;
    assert_eq!(many.len(), newer.len());
    for (entry, revision) in many.into_iter().zip(&newer) {
        assert_eq!(entry.unwrap().unwrap().document, revision.document);
    }

    assert_eq!(cache.probe().await.unwrap().servers.len(), 3);
    assert!(cache.move_watermark(None, DatabaseTime(1)).await.unwrap());
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
