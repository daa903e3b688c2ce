//! `worker grants`: the programs need every right that it prints, and have no other.

use e2e::{Database, Draft, Ledger, Stack, denials, rejected_samples, valid_samples};
use shared::order::sample::Generator;
use sqlx::Error;

/// Orders, updates, erasures and records that cannot be stored.
fn everything(stack: &Stack) -> Ledger {
    let mut ledger = Ledger::default();
    let orders: Vec<_> = Generator::new(501, 1..=3).take(200).collect();
    let drafts: Vec<Draft> = orders.iter().map(Draft::order).collect();
    stack.send(&mut ledger, &drafts);
    stack.send(&mut ledger, &valid_samples(502));
    stack.send(&mut ledger, &rejected_samples(503));
    let mut changed = orders[0].clone();
    changed.track_number = "CHANGED".into();
    let erased = Draft::erasure(&orders[1].order_uid);
    stack.send(&mut ledger, &[Draft::order(&changed), erased]);
    stack.settle();
    ledger
}

/// Runs each command of an operator that needs rights of its own.
fn operate(stack: &mut Stack) {
    for command in [
        &["verify", "--topic"][..],
        &["dead-letters", "list"],
        &["dead-letters", "count"],
        &["dead-letters", "replay", "--all", "--limit", "1", "--yes"],
        &["cache", "clear"],
    ] {
        stack.command("worker", command).succeeded();
    }
    stack.settle();
    let purge = ["dead-letters", "purge", "--before", "1ms", "--yes"];
    stack.command("worker", &purge).succeeded();
    let list = ["dead-letters", "list", "--json"];
    assert_eq!(stack.command("worker", &list).succeeded(), "");
    stack.stop_workers();
    stack
        .command("worker", &["rewind", "--to", "1h"])
        .succeeded();
    stack.start_worker();
    stack.settle();
}

#[test]
fn the_programs_work_with_their_rights_alone_and_kafka_too() {
    let mut stack = Stack::builder("grants")
        .secured_kafka()
        .without_topics()
        .workers(2)
        .apis(1)
        .start();
    let ledger = everything(&stack);
    stack.check().tiers(&ledger);
    stack.await_answers(&ledger);
    operate(&mut stack);
    assert_eq!(
        denials(&stack.redis.url()).unwrap(),
        Vec::<String>::new(),
        "commands that Redis denied"
    );
    let logs: Vec<String> = stack.workers.iter().map(|it| it.process.log()).collect();
    for log in logs {
        let denied = log
            .lines()
            .find(|line| line.to_lowercase().contains("authorization"));
        assert_eq!(denied, None);
    }
}

#[track_caller]
fn assert_denied(database: &Database, statement: &str) {
    let code = match database.try_execute(statement) {
        Err(Error::Database(error)) => error.code().map(|code| code.into_owned()),
        other => panic!("{statement}: {other:?}"),
    };
    // The right is missing, or the session does not own the table.
    assert_eq!(code.as_deref(), Some("42501"), "{statement}");
}

#[test]
fn postgres_denies_what_a_role_does_not_need() {
    let stack = Stack::builder("denied").start();
    let connect = |program: &str| Database::new(&stack.variable_of(program, &[], "DATABASE_URL"));
    let api = connect("api");
    for statement in [
        "INSERT INTO cache_repairs (order_uid) VALUES ('u')",
        "UPDATE orders SET locale = 'en'",
        "DELETE FROM items",
        "TRUNCATE orders",
        "SELECT * FROM dead_letter_replays",
        "SELECT nextval('orders_id_seq')",
        "CREATE TABLE mine ()",
    ] {
        assert_denied(&api, statement);
    }
    let worker = connect("worker");
    for statement in [
        "DELETE FROM orders",
        "UPDATE items SET price = 0",
        "TRUNCATE orders",
        "UPDATE _sqlx_migrations SET success = false",
        "DROP TABLE orders",
        "CREATE TABLE mine ()",
        "COPY orders TO PROGRAM 'cat'",
    ] {
        assert_denied(&worker, statement);
    }
    for reader in [&api, &worker] {
        reader.execute("SELECT * FROM orders, deliveries, payments, items");
    }
}

#[test]
fn redis_denies_what_a_user_does_not_need() {
    let stack = Stack::builder("acl").start();
    let run = |program: &str, words: &[&str]| {
        let url = stack.variable_of(program, &[], "REDIS_URL");
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let answer: redis::RedisResult<redis::Value> = command.query(&mut connection);
        answer
            .err()
            .and_then(|error| error.code().map(str::to_owned))
    };
    for (program, words) in [
        ("api", &["SET", "order:u", "x"][..]),
        ("api", &["HSET", "order-cache", "watermark", "1"]),
        ("api", &["HGET", "sessions", "x"]),
        ("api", &["KEYS", "*"]),
        ("api", &["SCAN", "0"]),
        ("api", &["PUBLISH", "other", "x"]),
        ("worker", &["HSET", "sessions", "x", "1"]),
        ("worker", &["FLUSHALL"]),
        ("worker", &["CONFIG", "GET", "requirepass"]),
        ("worker", &["EVAL", "return 1", "0"]),
        ("worker", &["SUBSCRIBE", "order-changes"]),
    ] {
        let code = run(program, words);
        assert_eq!(code.as_deref(), Some("NOPERM"), "{program} {words:?}");
    }
    assert_eq!(run("api", &["HMGET", "order-cache", "watermark"]), None);
    assert_eq!(run("worker", &["HSET", "order-cache", "x", "1"]), None);
}
