//! Start, readiness, shutdown.

use crate::harness::{Database, RedisServer, Replica, World, eventually, order};

#[tokio::test]
async fn the_newest_orders_are_cached_before_the_replica_is_ready() {
    let world = World::new().await;
    for n in 0..5 {
        world.database.store(&order(&format!("order-{n}")), n).await;
    }
    let mut config = world.config();
    config.cache.warmup = 3;
    let replica = Replica::start(config).await.ready().await;
    for (n, source) in [(4, "local"), (3, "local"), (2, "local"), (1, "postgres")] {
        assert_eq!(
            replica.order(&format!("order-{n}")).await.source(),
            Some(source),
            "order-{n}"
        );
    }
}

#[tokio::test]
async fn without_caches_every_answer_comes_from_postgres() {
    let world = World::new().await;
    world.database.store(&order("plain"), 1).await;
    let mut config = world.config();
    config.cache.enabled = false;
    let replica = Replica::start(config).await.ready().await;
    for _ in 0..2 {
        assert_eq!(replica.order("plain").await.source(), Some("postgres"));
    }
    assert_eq!(world.redis.version_of("plain").await, None);
}

#[tokio::test]
async fn without_a_local_cache_redis_answers() {
    let world = World::new().await;
    world.database.store(&order("shared"), 1).await;
    let mut config = world.config();
    config.local_cache.max_bytes = 0;
    let replica = Replica::start(config).await.ready().await;
    assert_eq!(replica.order("shared").await.source(), Some("postgres"));
    eventually("Redis has it", || async {
        world.redis.version_of("shared").await.is_some()
    })
    .await;
    for _ in 0..2 {
        assert_eq!(replica.order("shared").await.source(), Some("redis"));
    }
}

#[tokio::test]
async fn an_old_schema_is_waited_for_unready() {
    let world = World {
        database: Database::create_empty().await,
        redis: RedisServer::start().await,
    };
    let replica = Replica::start(world.config()).await;
    eventually("it says what is wrong", || async {
        let report = replica.probe("/readyz").await;
        report.status == 503 && String::from_utf8_lossy(&report.body).contains("worker migrate")
    })
    .await;
    assert_eq!(replica.probe("/livez").await.status, 200);
    world.database.migrate().await;
    replica.ready().await;
}

#[tokio::test]
async fn an_absent_postgres_is_waited_for_unready() {
    let world = World::new().await;
    world.database.shut().await;
    let replica = Replica::start(world.config()).await;
    eventually("it says what it waits for", || async {
        let report = replica.probe("/readyz").await;
        report.status == 503
            && String::from_utf8_lossy(&report.body).contains("waiting for Postgres")
    })
    .await;
    world.database.open().await;
    replica.ready().await;
}

#[tokio::test]
async fn an_absent_redis_does_not_keep_it_from_being_ready() {
    let world = World::new().await;
    world.redis.stop();
    world.database.store(&order("plain"), 1).await;
    let replica = world.replica().await;
    assert_eq!(replica.order("plain").await.status, 200);
}

#[tokio::test]
async fn a_request_in_flight_is_finished_before_it_stops() {
    let world = World::new().await;
    let mut config = world.config();
    config.cache.warmup = 0;
    let replica = Replica::start(config).await.ready().await;
    let lock = world.database.lock().await;
    let request = tokio::spawn(replica.request("GET", "/order/last").send());
    eventually("the request is under way", || async {
        world.database.waiting_sessions().await == 1
    })
    .await;
    replica.begin_stop();
    eventually("it is not ready any more", || async {
        replica.probe("/readyz").await.status == 503
    })
    .await;
    drop(lock);
    assert_eq!(request.await.unwrap().status, 404);
    replica.stopped().await;
}

#[tokio::test]
async fn what_cannot_be_used_stops_the_start_and_names_its_variable() {
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
