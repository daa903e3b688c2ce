//! Test harness: topics, received records, and runs of the binary.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const PARTITIONS: i32 = 3;

pub(crate) fn brokers() -> String {
    env::var("KAFKA_BROKERS")
        .expect("KAFKA_BROKERS is not set; run: eval \"$(scripts/services env)\"")
}

/// A record as the test received it.
#[derive(PartialEq)]
pub(crate) struct Received {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) traceparent: Option<String>,
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

/// The topic of one test, deleted on drop.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) admin: AdminClient<DefaultClientContext>,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Topic {
    pub(crate) fn create(test: &str) -> Self {
        Self::create_with(test, 8 << 20)
    }

    pub(crate) fn create_with(test: &str, max_message_bytes: usize) -> Self {
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

    /// First and next offset of a partition. Waits until the partition has a leader.
    pub(crate) fn watermarks(&self, consumer: &BaseConsumer, partition: i32) -> (i64, i64) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match consumer.fetch_watermarks(&self.name, partition, Duration::from_secs(5)) {
                Ok(watermarks) => return watermarks,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    /// Returns all records of the topic. The order across partitions is arbitrary.
    pub(crate) fn records(&self) -> Vec<Received> {
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
            eprintln!("cannot delete topic {}: {error}", self.name);
        }
    }
}

/// Path of a file that is deleted on drop.
pub(crate) struct TempFile(pub(crate) PathBuf);

impl TempFile {
    pub(crate) fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!(
            "producer-{}-{:08x}-{name}",
            process::id(),
            rand::random::<u32>()
        )))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _may_not_exist = fs::remove_file(&self.0);
    }
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_producer"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    command
}

pub(crate) fn producer(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

#[track_caller]
pub(crate) fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn key_of(json: &Value) -> Option<Vec<u8>> {
    Some(json["order_uid"].as_str()?.as_bytes().to_vec())
}

/// A child process that is killed on drop, so that it does not outlive a failed test.
pub(crate) struct KillOnDrop(pub(crate) Option<Child>);

impl KillOnDrop {
    pub(crate) fn end_by(mut self, signal: &str) -> Output {
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

/// Runs the binary with this standard input.
pub(crate) fn producer_with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A program that fails early reads nothing.
    let _may_be_closed = writing.join().unwrap();
    output
}
