use redis::AsyncCommands;
use shared::{
    DatabaseTime,
    cache::{Cache, CacheError, Subscription},
    config,
    order::{OrderUid, Revision, Version},
    testing::{TestCluster, TestRedis, write_until_taken},
};

fn revisions(count: i64) -> Vec<Revision> {
    (0..count)
        .map(|n| Revision {
            uid: OrderUid::parse(&format!("u{n}")).unwrap(),
            version: Version::new(1, n, 0),
            document: None,
        })
        .collect()
}

/// Fills the Redis at `config`, removes all our keys, and expects an announcement of that.
async fn fill_and_remove(config: &config::Redis) {
    let cache = Cache::pooled(config).unwrap();
    let revisions = revisions(2500);
    write_until_taken(&cache, &revisions).await;
    assert!(cache.move_watermark(None, DatabaseTime(7)).await.unwrap());
    let mut subscription = Subscription::open(config).await.unwrap();
    assert_eq!(cache.count().await.unwrap(), 2500);
    assert_eq!(cache.remove_all().await.unwrap(), 2500);
    assert_eq!(cache.count().await.unwrap(), 0);
    assert_eq!(cache.probe().await.unwrap().watermark, None);
    let end = loop {
        // Earlier announcements may still be on their way.
        if let Err(end) = subscription.next().await {
            break end;
        }
    };
    assert!(
        matches!(&end, CacheError::Connection(reason) if reason.contains("removed")),
        "{end}"
    );
    assert_eq!(
        cache.remove_all().await.unwrap(),
        0,
        "once more is harmless"
    );
}

#[tokio::test]
async fn only_our_keys_are_removed() {
    let redis = TestRedis::start();
    let mut connection = redis.connect().await;
    let _: () = connection.set("orders", "foreign value").await.unwrap();
    fill_and_remove(&redis.config()).await;
    let left: Vec<String> = connection.keys("*").await.unwrap();
    assert_eq!(left, ["orders"]);
}

#[tokio::test]
async fn our_keys_are_removed_from_every_master_of_a_cluster() {
    let cluster = TestCluster::start();
    fill_and_remove(&cluster.config()).await;
    for node in cluster.nodes() {
        let mut connection = node.connect().await;
        let left: Vec<String> = connection.keys("*").await.unwrap();
        assert_eq!(left, Vec::<String>::new());
    }
}
