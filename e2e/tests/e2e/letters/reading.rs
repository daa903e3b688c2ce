use e2e::{Record, Stack, until};
use serde_json::Value;

use super::{assert_contains, json, letter, letters, rejected, send_letters, send_rejected, uids};

#[test]
fn dead_letters_are_selected_and_counted() {
    let stack = Stack::builder("select").workers(1).start();
    send_rejected(&stack);
    let all = json(&stack, &["list"]);
    assert_eq!(all.len(), 4);
    let of = |arguments: &[&str]| json(&stack, &[&["list"], arguments].concat());
    assert_eq!(uids(&of(&["--reason", "invalid_order"])), ["one", "two"]);
    let other = of(&["--reason", "too_large,malformed_json"]);
    assert_eq!((other.len(), uids(&other)), (2, Vec::new()));
    let one = of(&["--uid", "one"]);
    assert_eq!((one.len(), uids(&one)), (1, vec!["one"]));
    assert_eq!(one[0]["detail"], "delivery.zip: zip");
    assert_eq!(one[0]["replayed_at"], Value::Null);
    assert_eq!(of(&["--limit", "3"]).len(), 3);
    let partition = one[0]["partition"].to_string();
    let place = ["--partition", &partition, "--offset", "0", "--limit", "9"];
    assert!(of(&place).len() == 1);
    let time = one[0]["time"].as_str().unwrap();
    assert!(uids(&of(&["--since", time])).contains(&"one"));
    assert!(!uids(&of(&["--until", time])).contains(&"one"));
    assert_eq!(of(&["--since", "1h"]).len(), 4);
    assert_eq!(of(&["--until", "1h"]).len(), 0);

    let counts = json(&stack, &["count", "--by", "reason"]);
    assert_eq!(counts.len(), 3);
    assert_eq!(
        (&counts[0]["key"], &counts[0]["count"]),
        (&"invalid_order".into(), &2.into())
    );
    let table = letters(&stack, &["count", "--by", "rule"]);
    assert_contains(&table, &["COUNT", "invalid_order: delivery.zip: zip"]);

    let error = rejected(&stack, &["list", "--reason", "invalid"]);
    assert_contains(&error, &["invalid_order", "rejected_by_database"]);
    let error = rejected(&stack, &["list", "--partition", "6"]);
    assert_contains(&error, &["has the partitions 0 to 5"]);
}

#[test]
fn one_dead_letter_is_shown_with_its_rule_in_words() {
    let stack = Stack::builder("show").workers(1).start();
    send_rejected(&stack);
    let show = |row: &Value, more: &[&str]| {
        let (partition, offset) = (row["partition"].to_string(), row["offset"].to_string());
        let place = ["show", "--partition", &partition, "--offset", &offset];
        letters(&stack, &[&place, more].concat())
    };
    let one = &json(&stack, &["list", "--uid", "one"])[0];
    let text = show(one, &[]);
    assert_contains(
        &text,
        &[
            "delivery.zip: 1 to 16 letters, digits, spaces or dashes",
            "a replay       becomes a dead letter again: invalid_order: delivery.zip: zip",
            "note = a\\u{1b}[2Jb",
            "dlq-topic = ",
        ],
    );
    assert!(!text.contains("no_zip!"), "{text}");
    assert_contains(&show(one, &["--payload"]), &["no_zip!"]);
    let details: Value = serde_json::from_str(&show(one, &["--json"])).unwrap();
    assert_eq!(details["rules"].as_array().unwrap().len(), 1);

    let malformed = &json(&stack, &["list", "--reason", "malformed_json"])[0];
    assert_contains(&show(malformed, &["--payload"]), &["{\\u{1b}[2J\\xff"]);
    let line = format!(
        "$BIN/worker dead-letters show --partition {} --offset {} --payload=raw | od -An -tx1",
        malformed["partition"], malformed["offset"]
    );
    assert_eq!(
        stack.shell(&line, &[]).succeeded().trim(),
        "7b 1b 5b 32 4a ff"
    );

    let missing = ["show", "--partition", "0", "--offset", "99"];
    assert_contains(&rejected(&stack, &missing), &["--offset 99: not found"]);
}

#[test]
fn a_missing_topic_and_a_missing_broker_are_named() {
    let stack = Stack::builder("nowhere").start();
    let topic = [("KAFKA_DEAD_LETTER_TOPIC", "no-such-topic-dlq")];
    for command in ["list", "count"] {
        let command = ["dead-letters", command];
        let finished = stack.command_with("worker", &command, &topic);
        assert_contains(&finished.stderr, &["no dead letters", "no-such-topic-dlq"]);
        assert_eq!(finished.succeeded(), "");
    }
    let follow = ["dead-letters", "list", "--follow"];
    let error = stack.command_with("worker", &follow, &topic).failed();
    assert_contains(
        &error,
        &["error: cannot follow a topic that does not exist"],
    );
    let brokers = [("KAFKA_BROKERS", "127.0.0.1:1")];
    let error = stack
        .command_with("worker", &["dead-letters", "list"], &brokers)
        .failed();
    assert_contains(&error, &["error: no broker of KAFKA_BROKERS answers"]);
    // Postgres only knows which ones were replayed.
    let database = [("DATABASE_URL", "postgres://u:p@127.0.0.1:1/x")];
    send_letters(&stack, &[letter(&stack.addresses().topic, 0, 1)]);
    let list = ["dead-letters", "list"];
    let finished = stack.command_with("worker", &list, &database);
    assert_contains(
        &finished.stderr,
        &["warning: cannot read which dead letters"],
    );
    assert_eq!(finished.succeeded().lines().count(), 2);
}

#[test]
fn a_long_list_ends_with_its_reader_and_follows_new_dead_letters() {
    const COUNT: usize = 3000;
    let mut stack = Stack::builder("long").start();
    let topic = stack.addresses().topic.clone();
    let many: Vec<Record> = (0..COUNT)
        .map(|n| letter(&topic, (n % 6) as i32, n))
        .collect();
    send_letters(&stack, &many);
    assert_eq!(json(&stack, &["list"]).len(), COUNT);

    // The pipe holds less than the list.
    let line = "$BIN/worker dead-letters list | head -1; echo ${PIPESTATUS[0]}";
    let finished = stack.shell(line, &[]);
    assert_eq!(finished.stderr, "");
    let printed = finished.succeeded();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with("PARTITION/OFFSET"), "{printed}");
    assert_eq!(lines[1..], ["0"]);

    let limit = (COUNT + 2).to_string();
    let follow = [
        "dead-letters",
        "list",
        "--follow",
        "--json",
        "--limit",
        &limit,
    ];
    let mut following = stack.launch("worker", &follow, &[]);
    for (sent, partition) in (COUNT..).zip([1, 5]) {
        until("the dead letters so far", || {
            let lines = following.log().lines().count();
            if lines == sent { Ok(()) } else { Err(lines) }
        });
        assert_eq!(following.ended(), None);
        send_letters(&stack, &[letter(&topic, partition, sent)]);
    }
    following.expect_orderly_end();
    assert_eq!(following.log().lines().count(), COUNT + 2);
}
