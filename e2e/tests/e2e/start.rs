//! Startup: configuration, schema, the small commands.

use std::time::Duration;

use e2e::{Stack, until};

/// A process that still runs after this time has accepted its configuration.
const START: Duration = Duration::from_secs(10);

/// Starts a program with one variable at a time. Returns the variables that did not stop it or that
/// its error does not name.
fn accepted(
    stack: &Stack,
    program: &str,
    command: &str,
    variables: &[(&'static str, &'static str)],
) -> Vec<String> {
    let ports = [("ADMIN_ADDR", "127.0.0.1:0"), ("API_ADDR", "127.0.0.1:0")];
    let mut problems = Vec::new();
    for (name, value) in variables {
        let environment = [&ports[..], &[(*name, *value)]].concat();
        let problem = match stack.command_within(START, program, &[command], &environment) {
            None => "does not stop the start".to_owned(),
            Some(finished) => {
                let said = finished.stdout + &finished.stderr;
                match finished.code {
                    Some(0) => format!("ends with exit code 0: {said}"),
                    _ if said.contains("panicked") => format!("panics: {said}"),
                    _ if !said.contains(name) => format!("is not named: {said}"),
                    _ => continue,
                }
            }
        };
        problems.push(format!("{program}: {name}={value} {problem}"));
    }
    problems
}

#[test]
fn a_malformed_variable_stops_the_start_with_its_name() {
    let stack = Stack::builder("config").start();
    let both = [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL_FILE", "/nowhere/at/all"),
        ("DATABASE_MAX_CONNECTIONS", "many"),
        ("DATABASE_TIMEOUT", "5"),
        ("DATABASE_TIMEOUT", "5 parsecs"),
        ("REDIS_URL", "nonsense"),
        ("REDIS_TIMEOUT", "-1s"),
        ("REDIS_ORDER_TTL", "for ever"),
        ("ADMIN_ADDR", "nonsense"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "worker=loudly"),
        ("RUST_LOG", "infoo"),
        // Unknown variables, also those of the other program.
        ("REDIS_TIMOEUT", "5s"),
        ("KAFKA_BROKERS_FILE", "/run/brokers"),
        ("WORKER_BATCHSIZE", "1"),
        ("API_RATELIMIT", "1"),
    ];
    let worker = [
        ("KAFKA_CREATE_TOPICS", "perhaps"),
        ("KAFKA_SESSION_TIMEOUT", "soon"),
        ("KAFKA_SECURITY_PROTOCOL", "pigeon"),
        ("WORKER_BATCH_SIZE", "-1"),
        ("WORKER_BATCH_MAX_BYTES", "lots"),
        ("WORKER_BATCH_LINGER", "5"),
        ("WORKER_STRICT_FIELDS", "yes please"),
        ("WORKER_SHUTDOWN_TIMEOUT", "later"),
    ];
    let api = [
        ("API_ADDR", "nonsense"),
        ("API_KEYS_FILE", "/nowhere/at/all"),
        ("API_RATE_LIMIT", "-1"),
        ("API_MAX_CONNECTIONS_PER_ADDRESS", "many"),
        ("API_REQUEST_TIMEOUT", "soon"),
        ("CACHE_ENABLED", "perhaps"),
        ("CACHE_WARMUP", "-5"),
        ("LOCAL_CACHE_MAX_BYTES", "lots"),
        ("LOCAL_CACHE_TTL", "5"),
        ("NEGATIVE_CACHE_TTL", "short"),
    ];
    let mut problems = accepted(&stack, "worker", "run", &[&both[..], &worker].concat());
    problems.extend(accepted(
        &stack,
        "api",
        "serve",
        &[&both[..], &api].concat(),
    ));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_program_reports_an_invalid_variable_in_the_same_form() {
    let stack = Stack::builder("form").start();
    for arguments in [
        &["worker", "run"][..],
        &["api", "serve"],
        &["producer", "send", "-n", "1"],
    ] {
        let said = stack
            .command_with(arguments[0], &arguments[1..], &[("LOG_FORMAT", "xml")])
            .failed();
        let expected = "error: LOG_FORMAT: \"xml\" is not a log format; write json or pretty\n";
        assert_eq!(said, expected, "{arguments:?}");
    }
}

/// The value is well-formed but unusable.
#[test]
fn an_impossible_value_stops_the_start_with_its_variable() {
    let stack = Stack::builder("never").start();
    let both = [
        ("DATABASE_MAX_CONNECTIONS", "0"),
        ("DATABASE_TIMEOUT", "0s"),
        ("DATABASE_TIMEOUT", "1000000y"),
        ("REDIS_TIMEOUT", "0s"),
        ("REDIS_ORDER_TTL", "0s"),
    ];
    let worker = [
        ("KAFKA_BROKERS", "localhost:http"),
        ("KAFKA_TOPIC", ""),
        ("KAFKA_TOPIC", "my orders"),
        ("KAFKA_SESSION_TIMEOUT", "1s"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("WORKER_SHUTDOWN_TIMEOUT", "0s"),
        ("KAFKA_GROUP_ID", ""),
        ("KAFKA_SESSION_TIMEOUT", "0s"),
        ("WORKER_BATCH_SIZE", "0"),
        ("WORKER_BATCH_MAX_BYTES", "0"),
    ];
    let api = [
        ("API_REQUEST_TIMEOUT", "0s"),
        ("LOCAL_CACHE_TTL", "1000000y"),
    ];
    let mut problems = accepted(&stack, "worker", "run", &[&both[..], &worker].concat());
    problems.extend(accepted(
        &stack,
        "api",
        "serve",
        &[&both[..], &api].concat(),
    ));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The values are valid alone, and not together.
#[test]
fn variables_of_kafka_that_contradict_each_other_stop_the_start() {
    let stack = Stack::builder("together").start();
    let topic = stack.addresses().topic.clone();
    for (variables, name) in [
        (
            &[("KAFKA_DEAD_LETTER_TOPIC", topic.as_str())][..],
            "KAFKA_DEAD_LETTER_TOPIC",
        ),
        (
            &[("KAFKA_SECURITY_PROTOCOL", "sasl_ssl")],
            "KAFKA_SASL_MECHANISM",
        ),
        (
            &[
                ("KAFKA_SECURITY_PROTOCOL", "ssl"),
                ("KAFKA_SSL_CA_LOCATION", "/nowhere/at/all"),
            ],
            "KAFKA_SSL_CA_LOCATION",
        ),
        (
            &[("KAFKA_OPTIONS", "enable.auto.commit=false")],
            "KAFKA_OPTIONS",
        ),
    ] {
        let said = stack.command_with("worker", &["run"], variables).failed();
        assert!(said.starts_with(&format!("error: {name}: ")), "{said}");
    }
}

/// Every command that reads a variable rejects an unknown one, and names the nearest.
#[test]
fn every_command_rejects_a_misspelt_variable() {
    let stack = Stack::builder("misspelt").start();
    for arguments in [
        &["worker", "run"][..],
        &["worker", "migrate"],
        &["worker", "health"],
        &["worker", "dead-letters", "list"],
        &["worker", "rewind", "--to", "1h"],
        &["worker", "cache", "clear"],
        &["api", "serve"],
        &["api", "health"],
        &["producer", "send", "-n", "1"],
        &["producer", "erase", "u"],
    ] {
        let said = stack
            .command_with(arguments[0], &arguments[1..], &[("REDIS_TIMOEUT", "5s")])
            .failed();
        let expected = "error: REDIS_TIMOEUT: unknown variable; write REDIS_TIMEOUT, the nearest \
                        one, or unset it\n";
        assert_eq!(said, expected, "{arguments:?}");
    }
}

/// In Kubernetes and compose, the environment has more variables with our prefixes.
#[test]
fn variables_that_orchestrators_add_do_not_stop_the_start() {
    let mut stack = Stack::builder("links").start();
    let added = [
        ("REDIS_SERVICE_HOST", "10.0.0.1"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("API_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("KAFKA_UI_PORT", "8085"),
        ("KAFKA_HEAP_OPTS", "-Xmx256m"),
    ];
    stack.start_worker_with(&added);
    stack.start_api_with(&added);
}

/// The broker's own limit is above the default one, so that only the broker knows it.
#[test]
fn a_session_timeout_that_the_brokers_reject_ends_the_worker_with_its_variable() {
    let mut stack = Stack::builder("session")
        .private_kafka_with(&["group.min.session.timeout.ms=10000"])
        .start();
    let worker = stack.launch_worker(&[("KAFKA_SESSION_TIMEOUT", "6s")]);
    let status = until("the end of the worker", || {
        worker.process.ended().ok_or("it still runs")
    });
    assert_eq!(status.code(), Some(1));
    let log = worker.process.log();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("the brokers reject the session timeout"));
    assert!(
        line.is_some_and(|line| line.contains("KAFKA_SESSION_TIMEOUT")),
        "{log}"
    );
    stack.start_worker_with(&[("KAFKA_SESSION_TIMEOUT", "10s")]);
}

/// The text of an error must not contain the password.
#[test]
fn a_malformed_secret_is_not_shown() {
    let stack = Stack::builder("secret").start();
    for (program, arguments) in [("worker", "run"), ("api", "serve")] {
        for (name, value) in [
            ("DATABASE_URL", "postgres://user:hunter2@[::1:5432/orders"),
            ("REDIS_URL", "redi://:hunter2@127.0.0.1:6379"),
        ] {
            let said = stack
                .command_with(
                    program,
                    &[arguments],
                    &[
                        ("ADMIN_ADDR", "127.0.0.1:0"),
                        ("API_ADDR", "127.0.0.1:0"),
                        (name, value),
                    ],
                )
                .failed();
            assert!(said.contains(name), "{program}: {said}");
            assert!(!said.contains("hunter2"), "{program}: {said}");
        }
    }
}

#[test]
fn small_commands_succeed() {
    let mut stack = Stack::builder("commands").workers(1).apis(1).start();
    for program in ["worker", "api", "producer"] {
        let version = stack.command(program, &["--version"]).succeeded();
        assert_eq!(
            version.trim(),
            format!("{program} {}", env!("CARGO_PKG_VERSION"))
        );
        stack.command(program, &["--help"]).succeeded();
        stack.command(program, &["nonsense"]).failed();
    }
    let json = stack.command("api", &["openapi"]).succeeded();
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(document["paths"]["/order/{order_uid}"]["get"].is_object());
    assert!(
        stack
            .command("api", &["openapi", "--yaml"])
            .succeeded()
            .contains("/orders")
    );

    let addresses = [
        ("worker", stack.workers[0].admin.address()),
        ("api", stack.apis[0].admin.address()),
    ];
    for (program, address) in &addresses {
        let variables = [("ADMIN_ADDR", address.as_str())];
        stack
            .command_with(program, &["health"], &variables)
            .succeeded();
        stack
            .command_with(program, &["health", "--live"], &variables)
            .succeeded();
    }
    stack.stop_workers();
    stack.apis[0].process.terminate();
    for (program, address) in &addresses {
        let variables = [("ADMIN_ADDR", address.as_str())];
        stack
            .command_with(program, &["health"], &variables)
            .failed();
    }
}

#[test]
fn migrations_run_down_and_up_and_processes_wait_for_them() {
    let mut stack = Stack::builder("schema").without_schema().start();
    let database = stack.database();
    stack.launch_worker(&[]);
    stack.launch_api(&[]);
    let (worker, api) = (&mut stack.workers[0], &mut stack.apis[0]);
    for process in [&mut worker.process, &mut api.process] {
        until("a log that names `worker migrate`", || {
            match process.log() {
                log if log.contains("worker migrate") => Ok(()),
                log => Err(log),
            }
        });
        assert!(process.ended().is_none());
    }
    assert_eq!(worker.admin.get("/readyz").status, 503);
    assert_eq!(api.admin.get("/readyz").status, 503);

    stack.command("worker", &["migrate"]).succeeded();
    let (worker, api) = (&stack.workers[0], &stack.apis[0]);
    until("a ready worker", || match worker.admin.get("/readyz") {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text()),
    });
    until("a ready api", || match api.admin.get("/readyz") {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text()),
    });

    stack.stop_workers();
    stack.apis.clear();
    let versions = "SELECT count(*) FROM _sqlx_migrations WHERE success";
    let all = database.number(versions);
    stack
        .command("worker", &["migrate", "--down", "1"])
        .succeeded();
    assert_eq!(database.number(versions), all - 1);
    stack.command("worker", &["migrate"]).succeeded();
    assert_eq!(database.number(versions), all);
    stack
        .command(
            "worker",
            &["migrate", "--down", &all.to_string(), "--yes-drop-orders"],
        )
        .succeeded();
    let ours = "SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
                WHERE nspname = 'public' AND relname NOT LIKE '\\_sqlx%'";
    assert_eq!(database.number(ours), 0, "something is left");
    stack.command("worker", &["migrate"]).succeeded();

    // A newer schema is accepted: migrations expand first and contract one release later.
    database.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999999, 'from the future', true, '', 0)",
    );
    stack.command("worker", &["migrate"]).succeeded();
    stack.start_worker();
    stack.start_api();
}
