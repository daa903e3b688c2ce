//! Start, readiness, shutdown.

use crate::harness::{Replica, World, order};

#[tokio::test]
async fn the_warm_up_ends_before_the_replica_is_ready() {
    let world = World::new().await;
    for n in 0..5 {
        world.store(&order(&format!("order-{n}")), n).await;
    }
    let replica = world.replica_with(|config| config.cache.warmup = 3).await;
    for (n, source) in [(4, "local"), (3, "local"), (2, "local"), (1, "postgres")] {
        assert_eq!(
            replica.order(&format!("order-{n}")).await.source(),
            Some(source),
            "order-{n}"
        );
    }
}

#[tokio::test]
async fn without_caches_every_response_comes_from_postgres() {
    let world = World::new().await;
    world.store(&order("plain"), 1).await;
    let replica = world
        .replica_with(|config| config.cache.enabled = false)
        .await;
    for _ in 0..2 {
        assert_eq!(replica.order("plain").await.source(), Some("postgres"));
    }
    assert_eq!(world.cached_version("plain").await, None);
}

#[tokio::test]
async fn without_a_local_cache_responses_come_from_redis() {
    let world = World::new().await;
    world.store(&order("shared"), 1).await;
    let replica = world
        .replica_with(|config| config.local_cache.max_bytes = 0)
        .await;
    assert_eq!(replica.order("shared").await.source(), Some("postgres"));
    world.wait_until_cached("shared").await;
    for _ in 0..2 {
        assert_eq!(replica.order("shared").await.source(), Some("redis"));
    }
}

#[tokio::test]
async fn the_replica_is_not_ready_while_the_schema_is_old() {
    let world = World::without_schema().await;
    let replica = Replica::start(world.config()).await;
    replica
        .wait_for_reason("too old; run `worker migrate`")
        .await;
    assert_eq!(replica.probe("/livez").await.status, 200);
    world.database.migrate().await;
    replica.ready().await;
}

#[tokio::test]
async fn the_replica_is_not_ready_without_postgres() {
    let world = World::new().await;
    world.database.shut().await;
    let replica = Replica::start(world.config()).await;
    replica.wait_for_reason("waiting for Postgres").await;
    world.database.open().await;
    replica.ready().await;
}

#[tokio::test]
async fn the_replica_becomes_ready_without_redis() {
    let mut world = World::new().await;
    world.redis.kill();
    world.store(&order("plain"), 1).await;
    let replica = world.replica().await;
    assert_eq!(replica.order("plain").await.status, 200);
}

#[tokio::test]
async fn a_request_in_flight_finishes_before_the_stop() {
    let world = World::new().await;
    let replica = world.cold_replica().await;
    let lock = world.database.lock("orders").await;
    let request = tokio::spawn(replica.request("GET", "/order/last").send());
    world.wait_for_blocked_reads(1).await;
    replica.begin_stop();
    replica.wait_for_readiness(503).await;
    drop(lock);
    assert_eq!(request.await.unwrap().status, 404);
    replica.stopped().await;
}

#[tokio::test]
async fn an_unusable_value_stops_the_start_with_the_name_of_its_variable() {
    let config = || {
        let mut config = api::config::Config::default();
        config.api.addr = "127.0.0.1:0".to_owned();
        config.admin.addr = "127.0.0.1:0".to_owned();
        config
    };
    let (mut keys, mut origins, mut addr) = (config(), config(), config());
    let (mut database, mut replica) = (config(), config());
    keys.api.keys_file = Some("/nowhere/keys".into());
    origins.api.cors_origins = vec!["nonsense".to_owned()];
    database.database.url = "nonsense".to_owned();
    replica.database.read_url = Some("nonsense".to_owned());
    addr.api.addr = "nonsense".to_owned();
    for (config, variable) in [
        (keys, "API_KEYS_FILE"),
        (origins, "API_CORS_ORIGINS"),
        (database, "DATABASE_URL"),
        (replica, "DATABASE_READ_URL"),
        (addr, "API_ADDR"),
    ] {
        let error = api::App::build(config, prometheus::Registry::new())
            .await
            .err()
            .map(|error| format!("{error:#}"));
        assert!(
            error
                .as_deref()
                .is_some_and(|error| error.starts_with(variable)),
            "{error:?}"
        );
    }
}
