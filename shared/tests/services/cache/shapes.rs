//! Two programs with different shapes of the document share one Redis, as during an upgrade.

use std::time::Instant;

use redis::AsyncCommands;
use shared::{
    cache::{Cache, Cached, WriteOutcome},
    order::DocumentVersion,
    testing::TestRedis,
};

use super::{erased, order, revision, uid, version, write};

/// The text of `version(7)`. Operators and clients know this form.
const TEXT: &str = "0000001700000000000-0000000000000000007-0000000000";

fn in_shape(offset: i64, representation: u8) -> DocumentVersion {
    DocumentVersion {
        version: version(offset),
        representation,
    }
}

/// Returns the programs of the shapes 1, 2 and 10 over one Redis.
fn programs(redis: &TestRedis) -> [Cache; 3] {
    [1, 2, 10].map(|representation| {
        Cache::pooled(&redis.config())
            .unwrap()
            .with_representation(representation)
    })
}

#[tokio::test]
async fn the_field_version_names_the_shape_from_the_second_on() {
    let redis = TestRedis::start();
    let mut connection = redis.connect().await;
    let revision = revision(&order("u", 1), 7);
    let suffixes = ["", "-2", "-10"];
    for (cache, suffix) in programs(&redis).iter().zip(suffixes) {
        assert_eq!(write(cache, &revision).await, WriteOutcome::Written);
        let held: String = connection.hget("order:u", "version").await.unwrap();
        assert_eq!(held, format!("{TEXT}{suffix}"));
        assert_eq!(write(cache, &revision).await, WriteOutcome::Unchanged);
    }
}

#[tokio::test]
async fn an_entry_of_an_older_shape_is_missing_and_is_overwritten() {
    let redis = TestRedis::start();
    let [old, new, _] = programs(&redis);
    let revision = revision(&order("u", 1), 7);
    assert_eq!(write(&old, &revision).await, WriteOutcome::Written);
    assert_eq!(new.get(&uid("u")).await.unwrap(), None);
    assert_eq!(
        new.fill(&revision, Instant::now()).await.unwrap(),
        WriteOutcome::Written
    );
    let cached = new.get(&uid("u")).await.unwrap().unwrap();
    assert_eq!(cached.version, in_shape(7, 2));
}

#[tokio::test]
async fn an_entry_of_a_newer_shape_stays_and_is_read_as_it_is() {
    let redis = TestRedis::start();
    let [first, second, tenth] = programs(&redis);
    let older = revision(&order("u", 1), 7);
    assert_eq!(write(&tenth, &older).await, WriteOutcome::Written);
    for cache in [&first, &second] {
        assert_eq!(write(cache, &older).await, WriteOutcome::KeptShape);
        let cached = Cached::unchecked(in_shape(7, 10), older.document.clone());
        assert_eq!(cache.get(&uid("u")).await.unwrap(), Some(cached));
    }
}

#[tokio::test]
async fn the_version_decides_before_the_shape() {
    let redis = TestRedis::start();
    let [old, new, _] = programs(&redis);
    let (first, second) = (revision(&order("u", 1), 7), revision(&order("u", 2), 8));
    assert_eq!(write(&new, &first).await, WriteOutcome::Written);
    assert_eq!(write(&old, &second).await, WriteOutcome::Written);
    let kept = WriteOutcome::KeptNewer(in_shape(8, 1));
    assert_eq!(write(&new, &first).await, kept);
    let cached = old.get(&uid("u")).await.unwrap().unwrap();
    assert_eq!(cached.version, in_shape(8, 1));
    assert_eq!(new.get(&uid("u")).await.unwrap(), None);
    assert_eq!(write(&new, &erased("u", 9)).await, WriteOutcome::Written);
    assert_eq!(
        old.get(&uid("u")).await.unwrap(),
        Some(Cached::unchecked(in_shape(9, 2), None))
    );
}
