//! TLS towards Redis, and passwords and certificates that are replaced while the process runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use shared::{
    cache::{Cache, CacheError, Subscription},
    config,
    testing::{TestAuthority, TestCertificate, TestRedis, eventually},
};

const NAMES: &str = "DNS:localhost,IP:127.0.0.1";

/// The configuration for the TLS port of `redis`.
fn config_of(redis: &TestRedis, port: u16, authority: &TestAuthority) -> config::Redis {
    config::Redis {
        url: format!("rediss://localhost:{port}"),
        ca_file: Some(authority.certificate()),
        ..redis.config()
    }
}

fn with(config: config::Redis, client: &TestCertificate) -> config::Redis {
    config::Redis {
        cert_file: Some(client.certificate.clone()),
        key_file: Some(client.key.clone()),
        ..config
    }
}

/// Returns the error of every kind of connection, which must be the same.
async fn failure(config: &config::Redis) -> String {
    let mut errors = Vec::new();
    for cache in [
        Cache::shared(config).unwrap(),
        Cache::pooled(config).unwrap(),
    ] {
        errors.push(cache.probe().await.err().unwrap().to_string());
    }
    errors.push(Subscription::open(config).await.err().unwrap().to_string());
    errors.dedup();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.remove(0)
}

async fn works(config: &config::Redis) {
    for cache in [
        Cache::shared(config).unwrap(),
        Cache::pooled(config).unwrap(),
    ] {
        cache.probe().await.unwrap();
    }
    Subscription::open(config).await.map(drop).unwrap();
}

#[tokio::test]
async fn a_server_whose_certificate_cannot_be_verified_is_an_error_that_names_the_cause() {
    let authority = TestAuthority::create();
    let (redis, port) = TestRedis::start_tls(&authority.issue(NAMES), None);
    works(&config_of(&redis, port, &authority)).await;
    let stranger = TestAuthority::create();
    assert_eq!(
        failure(&config_of(&redis, port, &stranger)).await,
        "connection to Redis: no trusted authority signed the certificate of the server; check \
         REDIS_CA_FILE"
    );

    let (other, port) = TestRedis::start_tls(&authority.issue("DNS:other.internal"), None);
    assert_eq!(
        failure(&config_of(&other, port, &authority)).await,
        "connection to Redis: the certificate of the server is valid for other.internal, not for \
         localhost; check the host in REDIS_URL"
    );

    let (expired, port) = TestRedis::start_tls(&authority.issue_expired(NAMES), None);
    assert_eq!(
        failure(&config_of(&expired, port, &authority)).await,
        "connection to Redis: the certificate of the server expired at 2020-01-02T00:00:00Z; \
         renew it at the server"
    );
}

#[tokio::test]
async fn a_server_that_rejects_the_client_certificate_is_an_error_that_names_the_variables() {
    let authority = TestAuthority::create();
    let trusted = authority.certificate();
    let (redis, port) = TestRedis::start_tls(&authority.issue(NAMES), Some(&trusted));
    let config = config_of(&redis, port, &authority);
    works(&with(config.clone(), &authority.issue("DNS:worker"))).await;
    assert_eq!(
        failure(&config).await,
        "connection to Redis: the server requires a client certificate; set REDIS_CERT_FILE and \
         REDIS_KEY_FILE"
    );
    let expired = with(config.clone(), &authority.issue_expired("DNS:worker"));
    assert_eq!(
        failure(&expired).await,
        "connection to Redis: the server reports an expired client certificate; renew it \
         (REDIS_CERT_FILE and REDIS_KEY_FILE)"
    );
    let stranger = TestAuthority::create();
    assert_eq!(
        failure(&with(config, &stranger.issue("DNS:worker"))).await,
        "connection to Redis: the server rejects the client certificate (UnknownCA); check \
         REDIS_CERT_FILE and REDIS_KEY_FILE"
    );
}

#[test]
fn a_file_that_cannot_be_used_stops_the_start_and_names_the_variable() {
    let authority = TestAuthority::create();
    let (client, other) = (authority.issue("DNS:a"), authority.issue("DNS:b"));
    let base = config::Redis {
        url: "rediss://localhost".to_owned(),
        ca_file: Some(authority.certificate()),
        ..config::Redis::default()
    };
    let empty = authority.file("empty");
    fs::write(&empty, "").unwrap();
    let pair = |certificate: &PathBuf, key: &PathBuf| config::Redis {
        cert_file: Some(certificate.clone()),
        key_file: Some(key.clone()),
        ..base.clone()
    };
    let missing = authority.file("missing");
    for (config, expected) in [
        (
            config::Redis {
                ca_file: Some(empty.clone()),
                ..base.clone()
            },
            format!(
                "REDIS_CA_FILE: {} holds no PEM certificate; write the path of one",
                empty.display()
            ),
        ),
        (
            pair(&missing, &client.key),
            format!(
                "REDIS_CERT_FILE: {} cannot be read: No such file or directory (os error 2); \
                 write the path of a readable file",
                missing.display()
            ),
        ),
        (
            pair(&client.certificate, &client.certificate),
            format!(
                "REDIS_KEY_FILE: {} holds no PEM key, or one with a password; write the path of \
                 one without",
                client.certificate.display()
            ),
        ),
        (
            pair(&client.certificate, &other.key),
            format!(
                "REDIS_KEY_FILE: {} is not the key of the certificate in {}; write the paths of a \
                 pair",
                other.key.display(),
                client.certificate.display()
            ),
        ),
    ] {
        refuses(&config, &expected);
    }
}

#[test]
fn a_file_for_tls_without_tls_stops_the_start() {
    let authority = TestAuthority::create();
    let config = config::Redis {
        url: "redis://localhost".to_owned(),
        ca_file: Some(authority.certificate()),
        ..config::Redis::default()
    };
    refuses(
        &config,
        "REDIS_CA_FILE: has no effect without TLS; write REDIS_URL=rediss://HOST:6379, or unset \
         this",
    );
}

/// Checks that neither kind of connection starts with this configuration.
fn refuses(config: &config::Redis, expected: &str) {
    for cache in [Cache::shared(config), Cache::pooled(config)] {
        assert_eq!(cache.err().unwrap().to_string(), expected);
    }
}

/// Closes the connections of a user.
async fn cut_off(redis: &TestRedis, user: &str) {
    let mut command = redis::cmd("CLIENT");
    command.arg("KILL").arg("USER").arg(user);
    let killed: Result<i64, _> = command.query_async(&mut redis.connect().await).await;
    killed.unwrap();
}

/// Creates the user `app`, whose URL is in `file`.
async fn user_from(redis: &TestRedis, file: &Path) -> config::Redis {
    let user = redis.user("app", "~* &* +@all").await;
    fs::write(file, &user.url).unwrap();
    config::Redis {
        url_file: Some(file.to_owned()),
        ..user
    }
}

#[tokio::test]
async fn new_connections_use_a_replaced_password_and_open_ones_stay() {
    let (redis, authority) = (TestRedis::start(), TestAuthority::create());
    let file = authority.file("url");
    let config = user_from(&redis, &file).await;
    let caches = [
        Cache::shared(&config).unwrap(),
        Cache::pooled(&config).unwrap(),
    ];
    for cache in &caches {
        cache.probe().await.unwrap();
    }
    // The server knows the new password first; the connections stay.
    let _: () = redis::cmd("ACL")
        .arg(&["SETUSER", "app", "resetpass", ">replaced"])
        .query_async(&mut redis.connect().await)
        .await
        .unwrap();
    for cache in &caches {
        cache.probe().await.unwrap();
    }
    let rejected = Subscription::open(&config).await.err().unwrap();
    assert_eq!(
        rejected.to_string(),
        "connection to Redis: Redis rejects the user or the password; correct REDIS_URL"
    );
    fs::write(&file, config.url.replace("secret", "replaced")).unwrap();
    // Reads the file at once.
    Subscription::open(&config).await.map(drop).unwrap();
    cut_off(&redis, "app").await;
    for cache in &caches {
        eventually("a connection with the new password", async || {
            cache.probe().await.ok().map(drop)
        })
        .await;
    }
}

#[tokio::test]
async fn a_replaced_file_that_does_not_work_leaves_the_open_connections() {
    let (redis, authority) = (TestRedis::start(), TestAuthority::create());
    let file = authority.file("url");
    let config = user_from(&redis, &file).await;
    let cache = Cache::shared(&config).unwrap();
    let before = cache.probe().await.unwrap().servers;
    fs::write(&file, config.url.replace("secret", "unknown")).unwrap();
    // The cache tries the new password: the server counts the rejection.
    eventually("an attempt with the new password", async || {
        let log: Vec<redis::Value> = redis::cmd("ACL")
            .arg("LOG")
            .query_async(&mut redis.connect().await)
            .await
            .unwrap();
        (!log.is_empty()).then_some(())
    })
    .await;
    assert_eq!(cache.probe().await.unwrap().servers, before);
}

#[tokio::test]
async fn a_replaced_authority_is_used_by_new_connections() {
    let (authority, stranger) = (TestAuthority::create(), TestAuthority::create());
    let (redis, port) = TestRedis::start_tls(&authority.issue(NAMES), None);
    let file = authority.file("trusted.pem");
    fs::copy(stranger.certificate(), &file).unwrap();
    let config = config::Redis {
        ca_file: Some(file.clone()),
        ..config_of(&redis, port, &authority)
    };
    let cache = Cache::shared(&config).unwrap();
    assert!(matches!(
        cache.probe().await,
        Err(CacheError::Connection(_))
    ));
    fs::copy(authority.certificate(), &file).unwrap();
    eventually("a connection with the new authority", async || {
        cache.probe().await.ok().map(drop)
    })
    .await;
}
