use std::{env, fs, path::PathBuf, time::Duration};

use serde::de::DeserializeOwned;

use super::*;

fn read<T: DeserializeOwned>(prefix: &str, variables: &[(&str, &str)]) -> Result<T, ConfigError> {
    load_from(
        prefix,
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

#[test]
fn reads_durations_numbers_and_flags() {
    let redis: Redis = read(
        "REDIS_",
        &[
            ("REDIS_TIMEOUT", "250ms"),
            ("REDIS_ORDER_TTL", "2h"),
            ("OTHER", "x"),
        ],
    )
    .unwrap();
    assert_eq!(redis.timeout, Duration::from_millis(250));
    assert_eq!(redis.order_ttl, Duration::from_secs(7200));
    let kafka: Kafka = read("KAFKA_", &[("KAFKA_CREATE_TOPICS", "false")]).unwrap();
    assert!(!kafka.create_topics);
    let database: Database = read(
        "DATABASE_",
        &[
            ("DATABASE_MAX_CONNECTIONS", "3"),
            ("DATABASE_TIMEOUT", "1s"),
        ],
    )
    .unwrap();
    assert_eq!(
        (database.max_connections, database.timeout),
        (3, Some(Duration::from_secs(1)))
    );
}

/// Returns the error for one variable of `T`.
fn error<T: DeserializeOwned>(prefix: &str, name: &str, value: &str) -> String {
    match read::<T>(prefix, &[(name, value)]) {
        Ok(_) => panic!("{name}={value} is accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_error_has_the_variable_the_value_and_what_to_write() {
    for (found, expected) in [
        (
            error::<Redis>("REDIS_", "REDIS_TIMEOUT", "5"),
            r#"REDIS_TIMEOUT: "5" is not a duration; write 5s or 250ms"#,
        ),
        (
            error::<Redis>("REDIS_", "REDIS_TIMEOUT", ""),
            r#"REDIS_TIMEOUT: "" is not a duration; write 5s or 250ms"#,
        ),
        (
            error::<Database>("DATABASE_", "DATABASE_TIMEOUT", "5 parsecs"),
            r#"DATABASE_TIMEOUT: "5 parsecs" is not a duration; write 5s or 250ms"#,
        ),
        (
            error::<Database>("DATABASE_", "DATABASE_MAX_CONNECTIONS", "0"),
            "DATABASE_MAX_CONNECTIONS: \"0\" is not a whole number from 1 to 4294967295; \
             write digits only",
        ),
        (
            error::<Kafka>("KAFKA_", "KAFKA_CREATE_TOPICS", "yes"),
            r#"KAFKA_CREATE_TOPICS: "yes" is not a flag; write true or false"#,
        ),
        (
            error::<Log>("LOG_", "LOG_FORMAT", "xml"),
            r#"LOG_FORMAT: "xml" is not a log format; write json or pretty"#,
        ),
        (
            error::<Redis>("REDIS_", "REDIS_URL_FILE", "/nowhere/at/all"),
            "REDIS_URL_FILE: cannot read /nowhere/at/all: No such file or directory (os error \
             2); write the path of a readable file",
        ),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_secret_is_set_by_its_value_or_by_a_file_and_never_quoted() {
    let path = env::temp_dir().join(format!("order-service-twice-{}", std::process::id()));
    fs::write(&path, "redis://:hidden@file").unwrap();
    let file = path.to_str().unwrap();
    let (value, file) = (
        ("REDIS_URL", "redis://:hidden@value"),
        ("REDIS_URL_FILE", file),
    );
    for variables in [[value, file], [file, value]] {
        let error = read::<Redis>("REDIS_", &variables).err().unwrap();
        assert_eq!(
            error.to_string(),
            "REDIS_URL: set by REDIS_URL and by REDIS_URL_FILE; unset one of them"
        );
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn an_unknown_variable_of_any_prefix_is_an_error() {
    let variables = [("API_RATE_LIMITT", "5"), ("REDIS_TIMEOUT", "5s")];
    let error = read::<Redis>("REDIS_", &variables).err().unwrap();
    assert_eq!(
        error.to_string(),
        "API_RATE_LIMITT: unknown variable; write API_RATE_LIMIT, the nearest one, or unset it"
    );
    let variables = [("REDIS_PORT", "tcp://10.0.0.1:6379"), ("REDISTIMEOUT", "x")];
    let redis: Redis = read("REDIS_", &variables).unwrap();
    assert_eq!(redis.url, Redis::default().url);
}

#[test]
fn a_secret_comes_from_its_file() {
    let path = env::temp_dir().join(format!("order-service-secret-{}", std::process::id()));
    for (mark, end) in [("", "\n"), ("\u{feff}", "\r\n")] {
        fs::write(&path, format!("{mark}redis://:hidden@cache:6379{end}")).unwrap();
        let file = path.to_str().unwrap();
        let redis: Redis = read("REDIS_", &[("REDIS_URL_FILE", file)]).unwrap();
        assert_eq!(redis.url, "redis://:hidden@cache:6379");
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn the_example_shows_the_defaults() {
    let example = crate::testing::example_variables();
    let kafka: Kafka = load_from("KAFKA_", example.clone()).unwrap();
    let default = Kafka::default();
    assert_eq!(
        (
            kafka.brokers,
            kafka.topic,
            kafka.dead_letter_topic,
            kafka.group_id
        ),
        (
            default.brokers,
            default.topic,
            default.dead_letter_topic,
            default.group_id
        )
    );
    assert_eq!(
        (kafka.create_topics, kafka.session_timeout),
        (default.create_topics, default.session_timeout)
    );
    let (redis, default): (Redis, _) = (
        load_from("REDIS_", example.clone()).unwrap(),
        Redis::default(),
    );
    assert_eq!(
        (redis.url, redis.timeout, redis.order_ttl),
        (default.url, default.timeout, default.order_ttl)
    );
    let (database, default): (Database, _) = (
        load_from("DATABASE_", example.clone()).unwrap(),
        Database::default(),
    );
    assert_eq!(
        (database.url, database.max_connections),
        (default.url, default.max_connections)
    );
    let admin: Admin = load_from("ADMIN_", example).unwrap();
    assert_eq!(admin.addr, Admin::default().addr);
}

#[test]
fn reads_every_variable_of_the_api() {
    let api: Api = read(
        "API_",
        &[
            ("API_ADDR", "127.0.0.1:0"),
            ("API_KEYS_FILE", "/etc/keys"),
            ("API_RATE_LIMIT", "100"),
            ("API_MAX_CONNECTIONS_PER_ADDRESS", "10"),
            ("API_REQUEST_TIMEOUT", "750ms"),
            ("API_CORS_ORIGINS", "https://a.example,https://b.example"),
        ],
    )
    .unwrap();
    assert_eq!(api.addr, "127.0.0.1:0");
    assert_eq!(api.keys_file, Some(PathBuf::from("/etc/keys")));
    assert_eq!((api.rate_limit, api.max_connections_per_address), (100, 10));
    assert_eq!(api.request_timeout, Duration::from_millis(750));
    assert_eq!(api.cors_origins, ["https://a.example", "https://b.example"]);

    let cache: Cache = read(
        "CACHE_",
        &[("CACHE_ENABLED", "false"), ("CACHE_WARMUP", "0")],
    )
    .unwrap();
    assert_eq!((cache.enabled, cache.warmup), (false, 0));
    assert_eq!(cache.mac_key, None);
    let cache: Cache = read("CACHE_", &[("CACHE_MAC_KEY", "aa,bb")]).unwrap();
    assert_eq!(cache.mac_key.as_deref(), Some("aa,bb"));
    let local: LocalCache = read(
        "LOCAL_CACHE_",
        &[("LOCAL_CACHE_MAX_BYTES", "1MiB"), ("LOCAL_CACHE_TTL", "2s")],
    )
    .unwrap();
    assert_eq!(
        (local.max_bytes, local.ttl),
        (1 << 20, Duration::from_secs(2))
    );
    let negative: NegativeCache =
        read("NEGATIVE_CACHE_", &[("NEGATIVE_CACHE_TTL", "300ms")]).unwrap();
    assert_eq!(negative.ttl, Duration::from_millis(300));
}

#[test]
fn an_error_of_the_api_has_the_same_form() {
    let size = read::<LocalCache>("LOCAL_CACHE_", &[("LOCAL_CACHE_MAX_BYTES", "lots")]);
    assert_eq!(
        size.err().unwrap().to_string(),
        r#"LOCAL_CACHE_MAX_BYTES: "lots" is not a size; write 8MiB or a number of bytes"#
    );
    let rate = read::<Api>("API_", &[("API_RATE_LIMIT", "-1")]);
    assert_eq!(
        rate.err().unwrap().to_string(),
        r#"API_RATE_LIMIT: "-1" is not a whole number from 0 to 4294967295; write digits only"#
    );
}

#[test]
fn the_example_shows_the_defaults_of_the_worker() {
    let example: Worker = load_from("WORKER_", crate::testing::example_variables()).unwrap();
    assert_eq!(example, Worker::default());
}

#[test]
fn a_value_that_kafka_never_accepts_is_an_error() {
    let brokers = "is not a list of brokers; write host:9092 or host1:9092,host2:9092";
    let topic = "is not the name of a topic; write up to 249 letters, digits, dots, dashes or \
                 underscores";
    let session = "is not a session timeout that brokers accept, from 6s to 30m; write 15s";
    let retention = "is not a retention from 1h to 365d; write 14d";
    let mechanism = "is not a supported mechanism; write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
    let protocol = "is not a security protocol; write plaintext, ssl, sasl_plaintext or sasl_ssl";
    let group = "is not the name of a group; write order-worker";
    let kafka = |name: &str, value: &str| error::<Kafka>("KAFKA_", name, value);
    let values = [
        ("KAFKA_BROKERS", "", brokers),
        ("KAFKA_BROKERS", "host:9092,", brokers),
        ("KAFKA_BROKERS", "host:http", brokers),
        ("KAFKA_BROKERS", "host:0", brokers),
        ("KAFKA_BROKERS", "host:70000", brokers),
        ("KAFKA_BROKERS", "host 9092", brokers),
        ("KAFKA_BROKERS", "http://host:9092", brokers),
        ("KAFKA_BROKERS", ":9092", brokers),
        ("KAFKA_TOPIC", "", topic),
        ("KAFKA_TOPIC", "my orders", topic),
        ("KAFKA_TOPIC", "..", topic),
        ("KAFKA_DEAD_LETTER_TOPIC", "orders/dlq", topic),
        ("KAFKA_GROUP_ID", " ", group),
        ("KAFKA_SESSION_TIMEOUT", "1s", session),
        ("KAFKA_SESSION_TIMEOUT", "5999ms", session),
        ("KAFKA_SESSION_TIMEOUT", "31m", session),
        ("KAFKA_DEAD_LETTER_RETENTION", "59m", retention),
        ("KAFKA_DEAD_LETTER_RETENTION", "366d", retention),
        ("KAFKA_SECURITY_PROTOCOL", "tls", protocol),
        ("KAFKA_SECURITY_PROTOCOL", "", protocol),
        ("KAFKA_SASL_MECHANISM", "GSSAPI", mechanism),
        ("KAFKA_SASL_MECHANISM", "scram-sha-512", mechanism),
    ];
    for (name, value, expected) in values {
        let expected = format!("{name}: {value:?} {expected}");
        assert_eq!(kafka(name, value), expected);
    }
}

#[test]
fn a_value_that_can_never_work_is_an_error() {
    let deadline = "is not a duration from 1ms to 365d; write 5s or 250ms";
    for (found, expected) in [
        (
            error::<Database>("DATABASE_", "DATABASE_TIMEOUT", "1us"),
            deadline,
        ),
        (
            error::<Database>("DATABASE_", "DATABASE_TIMEOUT", "400d"),
            deadline,
        ),
        (error::<Redis>("REDIS_", "REDIS_TIMEOUT", "0s"), deadline),
        (error::<Redis>("REDIS_", "REDIS_ORDER_TTL", "0s"), deadline),
        (error::<Api>("API_", "API_REQUEST_TIMEOUT", "0s"), deadline),
        (
            error::<LocalCache>("LOCAL_CACHE_", "LOCAL_CACHE_TTL", "900000y"),
            "is not a duration of at most 365d; write 5s",
        ),
        (
            error::<Worker>("WORKER_", "WORKER_BATCH_SIZE", "100001"),
            "is not a whole number from 1 to 100000; write digits only",
        ),
        (
            error::<Worker>("WORKER_", "WORKER_BATCH_MAX_BYTES", "2GiB"),
            "is not a size from 1 byte to 1GiB; write 8MiB",
        ),
        (
            error::<Worker>("WORKER_", "WORKER_SHUTDOWN_TIMEOUT", "0s"),
            "is not a time for a shutdown, from 1s to 365d; write 25s",
        ),
    ] {
        assert!(found.ends_with(expected), "{found}");
    }
}

#[test]
fn addresses_of_brokers_are_accepted() {
    for brokers in [
        "localhost",
        "localhost:9092",
        "a.example:9092, b.example:9093",
        "[::1]:9092",
        "[::1]",
        "SASL_SSL://broker:9093",
    ] {
        let kafka: Kafka = read("KAFKA_", &[("KAFKA_BROKERS", brokers)]).unwrap();
        assert_eq!(kafka.brokers, brokers);
    }
}

#[test]
fn variables_of_kafka_that_contradict_each_other_are_an_error() {
    let check = |variables: &[(&str, &str)]| {
        let kafka: Kafka = read("KAFKA_", variables).unwrap();
        kafka.check().err().map(|error| error.to_string())
    };
    let sasl = [
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", "user"),
        ("KAFKA_SASL_PASSWORD", "hidden"),
    ];
    assert_eq!(check(&[]), None);
    assert_eq!(check(&sasl), None);
    for missing in 1..sasl.len() {
        let variables: Vec<_> = sasl
            .iter()
            .filter(|one| **one != sasl[missing])
            .copied()
            .collect();
        let name = sasl[missing].0;
        let expected = format!("{name}: required by KAFKA_SECURITY_PROTOCOL=SASL_SSL; set it");
        assert_eq!(check(&variables), Some(expected));
    }
    let pair = [
        ("KAFKA_SECURITY_PROTOCOL", "ssl"),
        ("KAFKA_SSL_CERTIFICATE_LOCATION", "/client.pem"),
        ("KAFKA_SSL_KEY_LOCATION", "/client.key"),
    ];
    assert_eq!(check(&pair), None);
    assert_eq!(
        check(&pair[..2]).unwrap(),
        "KAFKA_SSL_KEY_LOCATION: required by KAFKA_SSL_CERTIFICATE_LOCATION; set it"
    );
    assert_eq!(
        check(&[pair[0], pair[2]]).unwrap(),
        "KAFKA_SSL_CERTIFICATE_LOCATION: required by KAFKA_SSL_KEY_LOCATION; set it"
    );
    assert_eq!(
        check(&[("KAFKA_SSL_CA_LOCATION", "/ca.pem")]).unwrap(),
        "KAFKA_SSL_CA_LOCATION: has no effect with KAFKA_SECURITY_PROTOCOL=plaintext; set that to \
         ssl or sasl_ssl, or unset this"
    );
    assert_eq!(
        check(&[("KAFKA_DEAD_LETTER_TOPIC", "orders")]).unwrap(),
        "KAFKA_DEAD_LETTER_TOPIC: \"orders\" is also KAFKA_TOPIC, and workers would read their own \
         dead letters; write another name, such as orders-dlq"
    );
}

#[test]
fn a_comma_without_a_name_continues_the_option_before_it() {
    let options = |value| {
        read::<Kafka>("KAFKA_", &[("KAFKA_OPTIONS", value)])
            .unwrap()
            .options
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        options("debug=broker,topic, client.rack = a,ssl.cipher.suites="),
        [
            pair("debug", "broker,topic"),
            pair("client.rack", "a"),
            pair("ssl.cipher.suites", ""),
        ]
    );
    for value in ["client.rack", "=a", "client.rack=a,=b", ""] {
        assert_eq!(
            error::<Kafka>("KAFKA_", "KAFKA_OPTIONS", value),
            format!(
                "KAFKA_OPTIONS: {value:?} is not a list of librdkafka's properties; write \
                 name=value,name=value"
            )
        );
    }
}

#[test]
fn a_secret_from_a_file_keeps_its_path() {
    let path = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::new_v4()));
    std::fs::write(&path, "rediss://host\n").unwrap();
    let file = path.to_str().unwrap();
    let redis: Redis = read("REDIS_", &[("REDIS_URL_FILE", file)]).unwrap();
    assert_eq!(
        (redis.url.as_str(), redis.url_file.as_ref()),
        ("rediss://host", Some(&path))
    );
    let redis: Redis = read("REDIS_", &[("REDIS_URL", "redis://host")]).unwrap();
    assert_eq!(redis.url_file, None);
    std::fs::remove_file(&path).unwrap();
}
