//! Forged entries in Redis: callers get what Postgres holds.

use api::App;
use prometheus::Registry;
use redis::AsyncCommands;
use serde_json::{Value, json};
use shared::order::{DocumentVersion, Version};

use crate::harness::{Replica, World, order, version};

const NAME: &str = "forged";
const ENTRY: &str = "order:forged";

/// Returns a replica without a local cache, and with the key that consists of `digit`.
async fn replica(world: &World, digit: Option<&str>) -> Replica {
    let key = digit.map(|digit| digit.repeat(64));
    world
        .cold_replica_with(|config| {
            config.local_cache.max_bytes = 0;
            config.cache.mac_key = key;
        })
        .await
}

async fn batch(replica: &Replica) -> Value {
    let answer = replica
        .request("POST", "/orders/batch-get")
        .header("Content-Type", "application/json")
        .body(&json!({ "order_uids": [NAME] }).to_string())
        .send()
        .await;
    assert_eq!(answer.status, 200);
    answer.json()
}

#[tokio::test]
async fn a_content_that_is_no_document_of_the_order_is_never_returned() {
    let world = World::new().await;
    let stored = order(NAME);
    world.store(&stored, 1).await;
    let replica = replica(&world, None).await;
    let mut redis = world.redis.connect().await;
    let other = order("other").to_json();
    let contents = [
        b"<script>alert(1)</script>".to_vec(),
        vec![b'x'; 20 << 20],
        other,
    ];
    for content in &contents {
        replica.wait_for_order_from("redis", &stored).await;
        let _: i64 = redis.hset(ENTRY, "json", content).await.unwrap();
        replica.order(NAME).await.assert_order("postgres", &stored);

        replica.wait_for_order_from("redis", &stored).await;
        let _: i64 = redis.hset(ENTRY, "json", content).await.unwrap();
        let answer = batch(&replica).await;
        let document: Value = serde_json::from_slice(&stored.to_json()).unwrap();
        assert_eq!(answer["orders"], json!([document]));
    }
    let rejected = 2.0 * contents.len() as f64;
    assert_eq!(replica.cache_requests("redis", "corrupt"), rejected);
    assert_eq!(replica.cache_requests("redis", "unverified"), 0.0);
}

#[tokio::test]
async fn with_a_key_a_forged_entry_is_never_returned() {
    let world = World::new().await;
    let stored = order(NAME);
    world.store(&stored, 1).await;
    let replica = replica(&world, Some("a")).await;
    let mut redis = world.redis.connect().await;
    let mut other = order(NAME);
    other.delivery_service = "other".into();
    let (other, newest) = (other.to_json(), Version::new(i64::MAX, 1, 1));
    let newest = DocumentVersion::current(newest).to_string();
    let same = DocumentVersion::current(version(1)).to_string();
    let forgeries = [
        // Another content, a newer one, and no MAC.
        vec![("version", same.as_bytes()), ("json", &other)],
        vec![("version", newest.as_bytes()), ("json", &other)],
        vec![("mac", b"")],
        // An erasure.
        vec![("version", newest.as_bytes())],
    ];
    for forgery in &forgeries {
        replica.wait_for_order_from("redis", &stored).await;
        if forgery.len() == 1 && forgery[0].0 == "version" {
            let _: i64 = redis.del(ENTRY).await.unwrap();
        }
        let _: () = redis.hset_multiple(ENTRY, forgery).await.unwrap();
        replica.order(NAME).await.assert_order("postgres", &stored);
    }
    replica.wait_for_order_from("redis", &stored).await;
    let rejected = forgeries.len() as f64;
    assert_eq!(replica.cache_requests("redis", "unverified"), rejected);
    assert_eq!(replica.cache_requests("redis", "corrupt"), 0.0);
}

/// As while the key is switched on: correct answers, one read of Postgres for each entry.
#[tokio::test]
async fn an_entry_of_a_process_without_the_key_is_signed_by_one_with_it() {
    let world = World::new().await;
    let stored = order(NAME);
    let revision = world.store(&stored, 1).await;
    world.announce(&revision).await;
    let (old, new) = (
        replica(&world, None).await,
        replica(&world, Some("a")).await,
    );
    old.order(NAME).await.assert_order("redis", &stored);
    new.order(NAME).await.assert_order("postgres", &stored);
    new.wait_for_order_from("redis", &stored).await;
    old.order(NAME).await.assert_order("redis", &stored);
}

#[tokio::test]
async fn a_malformed_key_stops_the_start() {
    let world = World::new().await;
    let mut config = world.config();
    config.cache.mac_key = Some("secret".to_owned());
    let error = App::build(config, Registry::new()).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "CACHE_MAC_KEY: key 1 has 6 characters; write 64 hex digits, or two such keys separated by \
         a comma"
    );
}
