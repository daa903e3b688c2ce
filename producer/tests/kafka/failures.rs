//! Failures are reported, and the exit code shows them.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::harness::*;

#[test]
fn orders_before_a_syntax_error_are_sent_and_the_error_names_file_and_line() {
    let topic = Topic::create("broken");
    let file = TempFile::new("broken.json");
    fs::write(
        &file.0,
        "[{\"order_uid\":\"a\"},\n{\"order_uid\" \"secret\"}]",
    )
    .unwrap();
    let output = producer(&[
        "send",
        "--topic",
        &topic.name,
        "--file",
        file.path(),
        "--gibberish",
        "1",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(file.path()) && errors.contains("line 2"),
        "{errors}"
    );
    assert!(!errors.contains("secret"));
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("sent 1 (1 orders, 0 invalid JSON, 0 gibberish)")
    );
    assert_eq!(topic.records().len(), 1);
}

#[test]
fn errors_name_an_unreachable_broker_and_a_missing_topic() {
    let output = producer(&[
        "send",
        "-n",
        "1",
        "--brokers",
        "127.0.0.1:1",
        "--timeout",
        "1s",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("error: 127.0.0.1:1: no broker responded within 1 s: ")
            && errors.ends_with("; check --brokers or KAFKA_BROKERS\n"),
        "{errors}"
    );

    let output = producer(&[
        "send",
        "-n",
        "1",
        "--topic",
        "no-such-topic",
        "--timeout",
        "1s",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no topic no-such-topic"), "{errors}");
    // The metadata request did not create the topic.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(None, DEADLINE).unwrap();
    assert!(
        metadata
            .topics()
            .iter()
            .all(|topic| topic.name() != "no-such-topic")
    );
}

#[test]
fn unacknowledged_records_fail_the_run() {
    // Every order is larger than the limit, so the broker rejects each of them.
    let topic = Topic::create_with("rejected", 100);
    let output = producer(&["send", "--topic", &topic.name, "-n", "100"]);
    assert_eq!(output.status.code(), Some(1));
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(
        summary.contains("sent 100 (") && summary.contains("acknowledged 0, failed 100"),
        "{summary}"
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(&format!("{} did not acknowledge 100 records", brokers())),
        "{errors}"
    );
}

#[test]
fn interrupt_prints_a_summary_of_the_sent_records() {
    let topic = Topic::create("interrupt");
    for (signal, exit_code) in [("INT", 130), ("TERM", 143)] {
        // The first record is due at once, the next one after an hour.
        let before = topic.records().len();
        let child = command(&[
            "send",
            "--topic",
            &topic.name,
            "-n",
            "10",
            "--interval",
            "1h",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let child = KillOnDrop(Some(child));
        let deadline = Instant::now() + DEADLINE;
        while topic.records().len() == before {
            assert!(Instant::now() < deadline, "the first record did not arrive");
        }
        let output = child.end_by(signal);
        assert_eq!(output.status.code(), Some(exit_code));
        let summary = String::from_utf8_lossy(&output.stdout);
        assert!(
            summary.contains("sent 1 (1 orders") && summary.contains("acknowledged 1, failed 0"),
            "{summary}"
        );
    }
}

#[test]
fn what_librdkafka_rejects_is_named_with_its_cause() {
    let output = command(&["send", "-n", "1"])
        .env("KAFKA_SECURITY_PROTOCOL", "ssl")
        .env("KAFKA_SSL_CA_LOCATION", "/nowhere/at/all.pem")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.starts_with("error: KAFKA_SSL_CA_LOCATION: ssl.ca.location failed: "),
        "{errors}"
    );
}
