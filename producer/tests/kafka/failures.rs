//! Failures are reported, and the exit code shows them.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::harness::*;

#[test]
fn broken_file_is_named_with_its_line_after_what_stood_before_it() {
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
fn no_broker_and_no_topic_are_said_by_name() {
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
        errors.contains("127.0.0.1:1: no broker answers: ") && errors.contains("gave up after 1 s"),
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
fn records_that_nobody_acknowledges_fail_the_run() {
    // Every order is larger than the limit, so the broker rejects each of them.
    let topic = Topic::create_with("refused", 100);
    let output = producer(&["send", "--topic", &topic.name, "-n", "100"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("sent 100 (") && said.contains("acknowledged 0, failed 100"),
        "{said}"
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(&format!("records failed at {}: ", brokers())),
        "{errors}"
    );
}

#[test]
fn interrupt_ends_with_a_summary_of_what_was_sent() {
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
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("sent 1 (1 orders") && said.contains("acknowledged 1, failed 0"),
            "{said}"
        );
    }
}
