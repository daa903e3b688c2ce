//! Announcements of writes, and the subscription to them.

use std::time::Instant;

use redis::AsyncCommands;
use shared::{
    cache::{Announcement, CHANNEL, Cache, Subscription, WriteOutcome},
    order::Revision,
    testing::TestRedis,
};

use super::{order, revision};

#[tokio::test]
async fn a_batch_has_one_announcement_and_a_fill_only_if_it_wrote() {
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
        .publish(CHANNEL, "not an announcement")
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
