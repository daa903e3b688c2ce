//! The state of the cache as a whole: watermark, bypass, removal of all entries.

use std::time::Instant;

use redis::AsyncCommands;
use shared::{DatabaseTime, cache::Cache, order::Revision, testing::TestRedis};

use super::erased;

#[tokio::test]
async fn the_watermark_moves_only_from_where_it_was_seen() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    assert_eq!(cache.probe().await.unwrap().watermark, None);
    assert!(cache.move_watermark(None, DatabaseTime(10)).await.unwrap());
    assert!(!cache.move_watermark(None, DatabaseTime(20)).await.unwrap());
    assert!(
        !cache
            .move_watermark(Some(DatabaseTime(9)), DatabaseTime(20))
            .await
            .unwrap()
    );
    cache.begin_bypass().await.unwrap();
    assert!(cache.probe().await.unwrap().bypass);
    assert!(
        cache
            .move_watermark(Some(DatabaseTime(10)), DatabaseTime(20))
            .await
            .unwrap()
    );
    let state = cache.probe().await.unwrap();
    assert_eq!(
        (state.watermark, state.bypass),
        (Some(DatabaseTime(20)), false)
    );
}

#[tokio::test]
async fn clearing_deletes_only_our_entries() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let batch: Vec<Revision> = (0..2500).map(|n| erased(&format!("u{n}"), n)).collect();
    cache.write_batch(&batch, Instant::now()).await;
    cache.move_watermark(None, DatabaseTime(1)).await.unwrap();
    let mut connection = redis.connect().await;
    let _: () = connection.set("other-application:key", 1).await.unwrap();
    assert_eq!(cache.clear().await.unwrap(), 2500);
    let mut left: Vec<String> = connection.keys("*").await.unwrap();
    left.sort();
    assert_eq!(left, ["order-cache", "other-application:key"]);
    assert_eq!(
        cache.eviction_policy().await.unwrap().as_deref(),
        Some("allkeys-lru")
    );
}
