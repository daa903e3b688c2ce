//! What every test stands on: a database, a Redis, replicas, a client.

mod client;
mod database;
mod redis_server;
mod replica;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use shared::order::{ForeignFields, Order, OrderUid, Version, decode};

pub(crate) use client::{Request, Response};
pub(crate) use database::Database;
pub(crate) use redis_server::RedisServer;
pub(crate) use replica::Replica;

/// The order that the service was specified by.
const MODEL: &str = include_str!("../../../../shared/src/order/model.json");

/// After this a condition is taken for one that never comes true.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, asking again and again.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let asking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, asking).await.is_ok(),
        "never came true: {what}"
    );
}

pub(crate) fn uid(text: &str) -> OrderUid {
    OrderUid::parse(text).unwrap()
}

pub(crate) fn version(offset: i64) -> Version {
    Version::new(1_700_000_000_000, offset, 3)
}

/// A valid order.
pub(crate) fn order(uid: &str) -> Order {
    let mut order = decode(MODEL.as_bytes(), ForeignFields::Ignore)
        .unwrap()
        .order;
    order.order_uid = uid.to_owned();
    order
}

/// The bytes that every tier answers for `order`.
pub(crate) fn document(order: &Order) -> Bytes {
    Bytes::from(order.to_json())
}

/// A database, a Redis, and what replicas need to use them.
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) redis: RedisServer,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self {
            database: Database::create().await,
            redis: RedisServer::start().await,
        }
    }

    /// The configuration of a replica on free ports.
    pub(crate) fn config(&self) -> api::config::Config {
        let mut config = api::config::Config::default();
        config.api.addr = "127.0.0.1:0".to_owned();
        config.admin.addr = "127.0.0.1:0".to_owned();
        config.database.url = self.database.url();
        config.database.max_connections = 4;
        config.database.timeout = Some(Duration::from_secs(10));
        config.redis.url = self.redis.url();
        config.redis.timeout = Duration::from_secs(5);
        // What a test relies on must not expire under it on a busy machine; those on expiry set their own.
        config.local_cache.ttl = Duration::from_secs(600);
        config.negative_cache.ttl = Duration::from_secs(600);
        config.api.request_timeout = Duration::from_secs(30);
        config
    }

    /// A replica that is ready.
    pub(crate) async fn replica(&self) -> Replica {
        Replica::start(self.config()).await.ready().await
    }
}
