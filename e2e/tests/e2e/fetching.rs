//! What a worker can read from Kafka, and what it cannot.

use e2e::{Record, Stack, Worker, large_order, until};
use shared::order::sample::Generator;

/// The limit that the worker sets when it creates the topic.
const TOPIC_MAX_BYTES: u32 = 8 << 20;
/// Memory bound of a worker whose fetches have an unpacked size of at most 48 MiB.
const MAX_BYTES: usize = 256 << 20;
/// An address without a listener.
const REFUSES: &str = "127.0.0.1:1";
/// Records of a zstd batch that is too large for a worker to unpack.
const TOO_LARGE_TO_UNPACK: usize = 26;

fn record(value: Vec<u8>) -> Record {
    Record {
        value: Some(value),
        ..Record::default()
    }
}

fn orders(seed: u64, count: usize) -> Vec<Record> {
    let orders = Generator::new(seed, 1..=3).take(count);
    orders.map(|order| record(order.to_json())).collect()
}

/// Orders of almost 1 MiB each.
fn large_orders(seed: u64, count: usize) -> Vec<Record> {
    let orders = Generator::new(seed, 1000..=1000).take(count);
    orders
        .map(|order| record(large_order(order).to_json()))
        .collect()
}

/// Returns blank records of that size between two orders.
fn blank(seed: u64, count: usize, size: usize) -> Vec<Record> {
    let mut records = orders(seed, 2);
    for _ in 0..count {
        records.insert(1, record(vec![b' '; size]));
    }
    records
}

fn rejected(worker: &Worker) -> u64 {
    worker.admin.metric("dead_letter_messages_total", "")
}

#[test]
fn batches_of_any_codec_up_to_48_mib_unpacked_are_read() {
    let mut stack = Stack::builder("codecs").workers(1).start();
    let topic = stack.addresses().topic.clone();
    let (mut stored, mut letters) = (0, 0);
    // Unpacked sizes in MB: 48, 24, 24, 24. The last one is 46 MiB of valid orders.
    for (seed, packer, codec, records, rejects) in [
        (61, "topic", "zstd", blank(61, 48, 1_000_000), 48),
        (62, "producer", "gzip", blank(62, 12, 2_000_000), 12),
        (63, "producer", "lz4", blank(63, 24, 1_000_000), 24),
        (64, "producer", "snappy", blank(64, 24, 1_000_000), 24),
        (65, "topic", "zstd", large_orders(65, 48), 0),
    ] {
        if packer == "topic" {
            stack.broker().pack_anew(&topic, codec, TOPIC_MAX_BYTES);
            // The broker does not recompress a batch that already has the codec of the topic.
            stack.broker().send_batch(&topic, "gzip", 3, &records);
        } else {
            stack
                .broker()
                .pack_anew(&topic, "producer", TOPIC_MAX_BYTES);
            stack.broker().send_batch(&topic, codec, 3, &records);
        }
        letters += rejects;
        for _ in rejects..records.len() {
            // One wait per order, because large orders take long on a busy machine.
            stored += 1;
            stack.await_orders(stored);
        }
        until(
            &format!("{letters} dead letters, {codec} of seed {seed}"),
            || match rejected(&stack.workers[0]) {
                found if found == letters as u64 => Ok(()),
                found => Err(found),
            },
        );
    }
    stack.settle();
    let worker = &stack.workers[0];
    assert_eq!(worker.admin.metric("worker_fetch_errors_total", ""), 0);
    assert_eq!(worker.admin.state_of("fetch_errors"), "none");
    let peak = worker.process.peak_bytes();
    eprintln!("peak {} MiB", peak >> 20);
    assert!(peak < MAX_BYTES, "{peak} bytes at once");
    stack.stop_workers();
}

/// Asserts that the log names the unreadable partition once, and has few lines about it.
#[track_caller]
fn assert_log_is_short(log: &str, failures: u64) {
    let lines = log.lines().filter(|line| line.contains("BadCompression"));
    // One line at the start, one when the partition is known, and the first one again each minute.
    let lines = lines.count() as u64;
    assert!((2..=failures / 8).contains(&lines), "{log}");
    let begins = log.matches("partition cannot be read").count();
    assert_eq!(begins, 1, "{log}");
}

/// Deletes the unreadable batch, as the runbook says, and sends readable records behind it.
fn delete_batch(stack: &Stack, topic: &str, records: i64) {
    stack.broker().delete_records(topic, &[(3, 2 + records)]);
    stack.broker().send_batch(topic, "none", 3, &orders(90, 2));
}

/// Waits until the worker reads the partition again and reports the deleted records.
fn await_recovery(worker: &Worker, deleted: u64) {
    until("a readable partition", || {
        let unreadable = worker.admin.metric("worker_partition_unreadable", "");
        match worker.admin.state_of("fetch_errors") {
            state if state == "none" && unreadable == 0 => Ok(()),
            other => Err(other),
        }
    });
    until("a report of the deleted records", || {
        match worker.admin.metric("worker_offset_gap_records_total", "") {
            gap if gap == deleted => Ok(()),
            gap => Err(gap),
        }
    });
}

#[test]
fn an_unreadable_partition_is_reported_while_others_progress() {
    let mut stack = Stack::builder("unreadable").workers(1).start();
    let topic = stack.addresses().topic.clone();
    stack.broker().pack_anew(&topic, "zstd", TOPIC_MAX_BYTES);
    stack.broker().send_batch(&topic, "none", 3, &orders(70, 2));
    stack.await_orders(2);
    let bad = blank(71, TOO_LARGE_TO_UNPACK, 8 << 20);
    stack.broker().send_batch(&topic, "gzip", 3, &bad);

    let worker = &stack.workers[0];
    let failures = || {
        let label = "code=\"BadCompression\"";
        worker.admin.metric("worker_fetch_errors_total", label)
    };
    until("the partition in /readyz", || {
        match worker.admin.state_of("fetch_errors") {
            state if state == "partition 3: BadCompression" => Ok(()),
            other => Err(other),
        }
    });
    // librdkafka retries twice a second. Other partitions progress. The worker stays ready and live
    // for longer than the stall after which it would report a failed liveness.
    let mut stored = 2;
    for seed in 72..82 {
        stack
            .broker()
            .send_batch(&topic, "none", 1, &orders(seed, 2));
        stored += 2;
        stack.await_orders(stored);
        let enough = (seed - 71) * 8;
        until(&format!("{enough} failures"), || match failures() {
            seen if seen >= enough => Ok(()),
            seen => Err(seen),
        });
        assert_eq!(worker.admin.get("/livez").status, 200);
        assert_eq!(worker.admin.get("/readyz").status, 200);
    }
    let unreadable = |label| worker.admin.metric("worker_partition_unreadable", label);
    assert_eq!(unreadable("partition=\"3\""), 1);
    assert_eq!(unreadable(""), 1, "other partitions are readable");
    assert_log_is_short(&worker.process.log(), failures());

    delete_batch(&stack, &topic, bad.len() as i64);
    stack.await_orders(stored + 2);
    await_recovery(&stack.workers[0], bad.len() as u64);
    stack.stop_workers();
}

#[test]
fn a_kafka_outage_is_logged_at_its_start_and_end() {
    let mut stack = Stack::builder("silence").private_kafka().start();
    let topic = stack.addresses().topic.clone();
    // One of the brokers refuses connections, like a broker whose process has ended.
    let brokers = format!("{},{REFUSES}", stack.addresses().brokers);
    stack.start_worker_with(&[("KAFKA_BROKERS", &brokers)]);
    stack.broker().send_batch(&topic, "none", 0, &orders(91, 2));
    stack.settle();
    let before = stack.workers[0].process.log().lines().count();

    stack.kafka().crash();
    let worker = &stack.workers[0];
    let failures = || worker.admin.metric("worker_fetch_errors_total", "");
    until("50 failures", || match failures() {
        seen if seen >= 50 => Ok(()),
        seen => Err(seen),
    });
    stack.kafka().start_again();
    stack.broker().send_batch(&topic, "none", 0, &orders(92, 2));
    stack.await_orders(4);
    until("a Kafka that is up", || {
        match worker.admin.state_of("kafka") {
            state if state == "up" => Ok(()),
            other => Err(other),
        }
    });

    let log = worker.process.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("kafka does not answer"), 1, "{lines:#?}");
    assert_eq!(count("kafka is back"), 1, "{lines:#?}");
    let all = count("\"WARN\"") + count("\"ERROR\"");
    assert!(all as u64 <= failures() / 8, "{lines:#?}");
    stack.stop_workers();
}

#[test]
fn the_first_start_logs_no_warning() {
    let mut stack = Stack::builder("first").without_topics().workers(1).start();
    let topic = stack.addresses().topic.clone();
    stack.broker().send_batch(&topic, "none", 2, &orders(95, 2));
    stack.await_orders(2);
    let first = stack.workers[0].process.log();
    stack.stop_workers();
    // The second worker finds the topics.
    let second = stack.start_worker().process.log();
    for log in [&first, &second] {
        for level in ["\"WARN\"", "\"ERROR\""] {
            assert!(!log.contains(level), "{log}");
        }
        assert!(!log.contains("[]"), "{log}");
    }
    assert!(first.contains("\"partitions\":\"0,1,2,3,4,5\""), "{first}");
    stack.stop_workers();
}
