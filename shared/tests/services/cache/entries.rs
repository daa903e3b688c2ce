//! Compare-and-set of one entry and of a batch.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redis::AsyncCommands;
use shared::{
    cache::{Cache, CacheError, Cached, WriteOutcome},
    order::Revision,
    testing::TestRedis,
};

use super::{document_version, erased, order, revision, uid, write};

#[tokio::test]
async fn an_entry_is_a_hash_of_version_and_json_that_expires() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let revision = revision(&order("u", 1), 7);
    assert_eq!(write(&cache, &revision).await, WriteOutcome::Written);
    let mut connection = redis.connect().await;
    let fields: HashMap<String, Vec<u8>> = connection.hgetall("order:u").await.unwrap();
    let expected = HashMap::from([
        (
            "version".to_owned(),
            document_version(7).to_string().into_bytes(),
        ),
        (
            "json".to_owned(),
            revision.document.clone().unwrap().to_vec(),
        ),
    ]);
    assert!(fields == expected);
    let ttl: i64 = connection.pttl("order:u").await.unwrap();
    assert!((3_590_000..=3_960_000).contains(&ttl), "{ttl}");
    let cached = Cached::unchecked(document_version(7), revision.document);
    assert_eq!(cache.get(&uid("u")).await.unwrap(), Some(cached));
    assert_eq!(cache.get(&uid("other")).await.unwrap(), None);
}

#[tokio::test]
async fn only_a_newer_version_is_written() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let (first, second) = (revision(&order("u", 1), 5), revision(&order("u", 2), 6));
    assert_eq!(write(&cache, &second).await, WriteOutcome::Written);
    let kept = WriteOutcome::KeptNewer(document_version(6));
    assert_eq!(write(&cache, &first).await, kept);
    // An equal version leaves the entry and its time to live unchanged.
    let mut connection = redis.connect().await;
    let _: bool = connection.pexpire("order:u", 1_000_000).await.unwrap();
    assert_eq!(write(&cache, &second).await, WriteOutcome::Unchanged);
    assert!(connection.pttl::<_, i64>("order:u").await.unwrap() <= 1_000_000);
    assert_eq!(
        cache.get(&uid("u")).await.unwrap().unwrap().document,
        second.document
    );

    assert_eq!(write(&cache, &erased("u", 7)).await, WriteOutcome::Written);
    let fields: Vec<String> = connection.hkeys("order:u").await.unwrap();
    assert_eq!(fields, ["version"]);
    let kept = WriteOutcome::KeptNewer(document_version(7));
    assert_eq!(write(&cache, &second).await, kept);
    assert_eq!(
        cache.get(&uid("u")).await.unwrap(),
        Some(Cached::unchecked(document_version(7), None))
    );
}

#[tokio::test]
async fn a_row_read_long_ago_creates_no_entry_but_replaces_an_older_one() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    cache.probe().await.unwrap();
    let revision = revision(&order("u", 1), 5);
    let long_ago = Instant::now()
        .checked_sub(Duration::from_millis(1500))
        .unwrap();
    let late = cache
        .write_batch(std::slice::from_ref(&revision), long_ago)
        .await;
    assert_eq!(
        late.into_iter().next().unwrap().unwrap(),
        WriteOutcome::Late
    );
    assert_eq!(
        cache.fill(&revision, long_ago).await.unwrap(),
        WriteOutcome::Late
    );
    assert_eq!(cache.get(&uid("u")).await.unwrap(), None);

    write(&cache, &erased("u", 4)).await;
    assert_eq!(
        cache.fill(&revision, long_ago).await.unwrap(),
        WriteOutcome::Written
    );
}

#[tokio::test]
async fn a_value_of_another_type_is_replaced() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let mut connection = redis.connect().await;
    let _: () = connection.set("order:u", "rubbish").await.unwrap();
    assert!(cache.get(&uid("u")).await.is_err());
    let revision = revision(&order("u", 1), 5);
    assert_eq!(write(&cache, &revision).await, WriteOutcome::Written);
    let _: () = connection.hset("order:u", "version", "zzz").await.unwrap();
    assert!(matches!(
        cache.get(&uid("u")).await,
        Err(CacheError::Corrupt)
    ));
    assert_eq!(write(&cache, &revision).await, WriteOutcome::Written);
    assert!(cache.get(&uid("u")).await.unwrap().is_some());
}

#[tokio::test]
async fn each_entry_of_a_batch_has_its_own_outcome() {
    let redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let mut connection = redis.connect().await;
    let batch: Vec<Revision> = (0..100)
        .map(|n| match n % 5 {
            4 => erased(&format!("u{n}"), 5),
            _ => revision(&order(&format!("u{n}"), n), 5),
        })
        .collect();
    let mut expected = Vec::new();
    for (n, change) in batch.iter().enumerate() {
        let before = |offset| revision(&order(change.uid.as_str(), 0), offset);
        expected.push(match n % 5 {
            0 => {
                write(&cache, &before(6)).await;
                WriteOutcome::KeptNewer(document_version(6))
            }
            1 => {
                write(&cache, change).await;
                WriteOutcome::Unchanged
            }
            2 => {
                let key = format!("order:{}", change.uid);
                let _: () = connection.set(key, "rubbish").await.unwrap();
                WriteOutcome::Written
            }
            3 => WriteOutcome::Written,
            _ => {
                write(&cache, &before(4)).await;
                WriteOutcome::Written
            }
        });
    }
    let results = cache.write_batch(&batch, Instant::now()).await;
    let outcomes: Vec<WriteOutcome> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, expected);
    for (n, change) in batch.iter().enumerate() {
        let cached = cache.get(&change.uid).await.unwrap().unwrap();
        match n % 5 {
            0 => assert_eq!(cached.version, document_version(6)),
            _ => assert_eq!(
                (cached.version, cached.document),
                (document_version(5), change.document.clone())
            ),
        }
    }
}
