//! The binary against a real broker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use shared::order::{ForeignFields, Reason, decode};

const DEADLINE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 3;

fn brokers() -> String {
    env::var("KAFKA_BROKERS")
        .expect("set KAFKA_BROKERS to a Kafka broker, such as `scripts/services env` prints it")
}

/// A record as it arrived.
#[derive(PartialEq)]
struct Received {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    traceparent: Option<String>,
}

impl From<BorrowedMessage<'_>> for Received {
    fn from(message: BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            traceparent: message.headers().and_then(|headers| {
                let header = headers.iter().find(|header| header.key == "traceparent")?;
                Some(String::from_utf8(header.value?.to_vec()).unwrap())
            }),
        }
    }
}

/// A topic of its own for each test.
struct Topic {
    name: String,
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Topic {
    fn create(test: &str) -> Self {
        Self::create_with(test, 8 << 20)
    }

    fn create_with(test: &str, max_message_bytes: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let admin: AdminClient<_> = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .create()
            .unwrap();
        let name = format!(
            "producer-{test}-{}-{:08x}",
            process::id(),
            rand::random::<u32>()
        );
        let size = max_message_bytes.to_string();
        let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1))
            .set("max.message.bytes", &size);
        let results = runtime
            .block_on(admin.create_topics([&topic], &AdminOptions::new()))
            .unwrap();
        assert_eq!(results, [Ok(name.clone())]);
        Self {
            name,
            admin,
            runtime,
        }
    }

    /// First and next offset of a partition, as soon as it has a leader.
    fn watermarks(&self, consumer: &BaseConsumer, partition: i32) -> (i64, i64) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match consumer.fetch_watermarks(&self.name, partition, Duration::from_secs(5)) {
                Ok(watermarks) => return watermarks,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    /// Everything in the topic: key and value, by partition.
    fn records(&self) -> Vec<Received> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", &self.name)
            .set("fetch.message.max.bytes", (16 << 20).to_string())
            .create()
            .unwrap();
        let mut left = 0;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let (low, high) = self.watermarks(&consumer, partition);
            left += high - low;
            assignment
                .add_partition_offset(&self.name, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut records = Vec::new();
        while left > 0 {
            assert!(Instant::now() < deadline, "{left} records did not arrive");
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                records.push(message.unwrap().into());
                left -= 1;
            }
        }
        records
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let deleted = self.runtime.block_on(
            self.admin
                .delete_topics(&[&self.name], &AdminOptions::new()),
        );
        if let Err(error) = deleted {
            eprintln!("topic {} is left behind: {error}", self.name);
        }
    }
}

/// A file that is gone after the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!(
            "producer-{}-{:08x}-{name}",
            process::id(),
            rand::random::<u32>()
        )))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _may_not_exist = fs::remove_file(&self.0);
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_producer"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    command
}

fn producer(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn key_of(json: &Value) -> Option<Vec<u8>> {
    Some(json["order_uid"].as_str()?.as_bytes().to_vec())
}

#[test]
fn file_arrives_byte_for_byte_under_its_uids() {
    let topic = Topic::create("file");
    for extension in ["json", "ndjson"] {
        let file = TempFile::new(&format!("orders.{extension}"));
        let said = succeeded(&producer(&[
            "generate",
            "-n",
            "200",
            "--invalid-rate",
            "0.1",
            "--seed",
            "7",
            "-o",
            file.path(),
        ]));
        assert!(
            said.contains("200 orders, 20 of them invalid") && said.contains("seed 7"),
            "{said}"
        );
        let said = succeeded(&producer(&[
            "send",
            "--topic",
            &topic.name,
            "--file",
            file.path(),
            "--invalid-json",
            "5",
            "--gibberish",
            "6",
        ]));
        assert!(
            said.contains(
                "sent 211 (200 orders, 5 invalid JSON, 6 gibberish), acknowledged 211, failed 0"
            ),
            "{said}"
        );

        // The lines of both files hold an order each, but for brackets and commas.
        let text = fs::read_to_string(&file.0).unwrap();
        let mut expected: Vec<_> = text
            .lines()
            .map(|line| line.trim_end_matches(','))
            .filter(|line| line.starts_with('{'))
            .map(|line| {
                (
                    key_of(&serde_json::from_str(line).unwrap()),
                    Some(line.as_bytes().to_vec()),
                )
            })
            .collect();
        assert_eq!(expected.len(), 200);
        let mut orders = Vec::new();
        let mut bad = BTreeMap::new();
        let mut reasons = BTreeMap::new();
        for Received { key, value, .. } in topic.records() {
            let bytes = value.as_deref().unwrap();
            if let Err(refusal) = decode(bytes, ForeignFields::Refuse) {
                *reasons.entry(refusal.reason).or_insert(0) += 1;
                if refusal.reason == Reason::MalformedJson {
                    assert_eq!(key, None);
                    *bad.entry(bytes[0] == b'{').or_insert(0) += 1;
                    continue;
                }
            }
            orders.push((key, value));
        }
        // The second round finds the records of the first, too: both files hold the same orders.
        let rounds = orders.len() / 200;
        assert_eq!(
            bad,
            BTreeMap::from([(true, 5 * rounds), (false, 6 * rounds)])
        );
        assert_eq!(
            reasons,
            BTreeMap::from([
                (Reason::MalformedJson, 11 * rounds),
                (Reason::InvalidOrder, 20 * rounds)
            ])
        );
        orders.sort();
        orders.dedup();
        expected.sort();
        assert!(orders == expected, "other records arrived than were sent");
    }
}

#[test]
fn made_up_orders_follow_the_seed_and_one_uid_keeps_its_partition() {
    let topic = Topic::create("seed");
    let send = [
        "send",
        "--topic",
        &topic.name,
        "-n",
        "100",
        "--seed",
        "11",
        "--min-items",
        "2",
        "--max-items",
        "2",
    ];
    for _ in 0..2 {
        let said = succeeded(&producer(&send));
        assert!(
            said.contains("seed 11") && said.contains("sent 100 (100 orders"),
            "{said}"
        );
    }
    let records = topic.records();
    assert_eq!(records.len(), 200);
    let mut by_key = BTreeMap::<_, Vec<_>>::new();
    for Received {
        partition,
        key,
        value,
        traceparent,
    } in records
    {
        assert_eq!(traceparent, None);
        let order = decode(value.as_deref().unwrap(), ForeignFields::Refuse)
            .unwrap()
            .order;
        assert_eq!(order.items.len(), 2);
        by_key
            .entry(key.unwrap())
            .or_default()
            .push((partition, value));
    }
    assert_eq!(by_key.len(), 100);
    assert!(
        by_key
            .values()
            .all(|twins| twins.len() == 2 && twins[0] == twins[1])
    );
}

#[test]
fn erasure_is_a_null_value_and_an_empty_one_is_not() {
    let topic = Topic::create("erase");
    let said = succeeded(&producer(&[
        "erase",
        "--topic",
        &topic.name,
        "order-1",
        "order_2",
    ]));
    assert!(
        said.contains("sent 2 (2 erasures), acknowledged 2"),
        "{said}"
    );
    let mut records: Vec<_> = topic
        .records()
        .into_iter()
        .map(|record| (record.key, record.value))
        .collect();
    records.sort();
    assert_eq!(
        records,
        [
            (Some(b"order-1".to_vec()), None),
            (Some(b"order_2".to_vec()), None)
        ]
    );
}

#[test]
fn oversized_order_is_sent_up_to_the_topics_limit() {
    let topic = Topic::create("large");
    let order = |bytes: usize| {
        format!(
            "{{\"order_uid\":\"large\",\"x\":\"{}\"}}\n",
            "x".repeat(bytes)
        )
    };
    let file = TempFile::new("large.ndjson");
    fs::write(&file.0, order(2 << 20)).unwrap();
    succeeded(&producer(&[
        "send",
        "--topic",
        &topic.name,
        "--file",
        file.path(),
    ]));
    let records = topic.records();
    assert_eq!(records.len(), 1);
    assert!(
        records[0]
            .value
            .as_ref()
            .is_some_and(|value| value.len() > 2 << 20)
    );

    // One that no broker would take fails alone.
    fs::write(&file.0, [order(9 << 20), order(1)].concat()).unwrap();
    let output = producer(&["send", "--topic", &topic.name, "--file", file.path()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("sent 2 (2 orders, 0 invalid JSON, 0 gibberish), acknowledged 1, failed 1"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("MessageSizeTooLarge"));
}

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
    // Asking did not create it.
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
    // No order is that small, so the broker refuses each of them.
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
        // One record at once, the next in an hour.
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

/// A child that does not outlive a failed test.
struct KillOnDrop(Option<Child>);

impl KillOnDrop {
    fn end_by(mut self, signal: &str) -> Output {
        let child = self.0.take().unwrap();
        let sent = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        child.wait_with_output().unwrap()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _may_have_ended = child.kill();
        }
    }
}

#[test]
fn each_record_carries_a_trace_of_its_own_where_traces_go_anywhere() {
    let topic = Topic::create("traces");
    let output = command(&["send", "--topic", &topic.name, "-n", "3"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .output()
        .unwrap();
    succeeded(&output);
    let traces: BTreeSet<_> = topic
        .records()
        .into_iter()
        .map(|record| record.traceparent.unwrap())
        .collect();
    assert_eq!(traces.len(), 3);
    // Version, trace, span, and the flag that says that it is sampled.
    for trace in traces {
        let parts: Vec<_> = trace.split('-').map(str::len).collect();
        assert!(parts == [2, 32, 16, 2] && trace.ends_with("-01"), "{trace}");
    }
}

#[test]
fn version_is_printed() {
    let said = succeeded(&producer(&["--version"]));
    assert_eq!(
        said.trim(),
        format!("producer {}", env!("CARGO_PKG_VERSION"))
    );
}
