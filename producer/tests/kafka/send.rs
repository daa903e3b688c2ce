//! Sent records arrive complete and unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::{env, fs};

use shared::order::{Reason, UnknownFields, decode};

use super::harness::*;

#[test]
fn file_is_sent_byte_for_byte_with_uids_as_keys() {
    let topic = Topic::create("file");
    // The second round also finds the records of the first: both files hold the same orders.
    for (extension, rounds) in [("json", 1), ("ndjson", 2)] {
        let file = TempFile::new(&format!("orders.{extension}"));
        let output = succeeded(&producer(&[
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
            output.contains("200 orders, 20 of them invalid") && output.contains("seed 7"),
            "{output}"
        );
        let output = succeeded(&producer(&[
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
            output.contains(
                "sent 211 (200 orders, 5 invalid JSON, 6 gibberish), acknowledged 211, failed 0"
            ),
            "{output}"
        );
        let mut expected = orders_in(&fs::read_to_string(&file.0).unwrap());
        assert_eq!(expected.len(), 200);
        let sent = Sent::sort(topic.records());
        let count = |per_round: usize| per_round * rounds;
        assert_eq!((sent.truncated, sent.gibberish), (count(5), count(6)));
        assert_eq!((sent.orders.len(), sent.invalid), (count(200), count(20)));
        let mut orders = sent.orders;
        orders.sort();
        orders.dedup();
        expected.sort();
        assert!(
            orders == expected,
            "the topic does not hold exactly the sent records"
        );
    }
}

/// Key and value of a record.
type KeyValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Returns the records of the orders in a file. Each line of an array or of NDJSON holds one order;
/// in the array, brackets and commas surround the orders.
fn orders_in(text: &str) -> Vec<KeyValue> {
    text.lines()
        .map(|line| line.trim_end_matches(','))
        .filter(|line| line.starts_with('{'))
        .map(|line| {
            let key = key_of(&serde_json::from_str(line).unwrap());
            (key, Some(line.as_bytes().to_vec()))
        })
        .collect()
}

/// Received records by kind.
#[derive(Default)]
struct Sent {
    /// Orders, including those that break a rule.
    orders: Vec<KeyValue>,
    /// Number of orders that break a rule.
    invalid: usize,
    /// Number of truncated documents.
    truncated: usize,
    /// Number of records of random bytes.
    gibberish: usize,
}

impl Sent {
    fn sort(records: Vec<Received>) -> Self {
        let mut sent = Self::default();
        for Received { key, value, .. } in records {
            let bytes = value.as_deref().unwrap();
            match decode(bytes, UnknownFields::Reject).map_err(|rejection| rejection.reason) {
                Ok(_) => {}
                Err(Reason::InvalidOrder) => sent.invalid += 1,
                Err(reason) => {
                    assert_eq!((reason, key), (Reason::MalformedJson, None));
                    let is_truncated = bytes[0] == b'{';
                    sent.truncated += usize::from(is_truncated);
                    sent.gibberish += usize::from(!is_truncated);
                    continue;
                }
            }
            sent.orders.push((key, value));
        }
        sent
    }
}

/// A file as Windows editors and tools write it.
#[test]
fn byte_order_mark_of_a_file_is_not_sent() {
    let topic = Topic::create("mark");
    let orders = [r#"{"order_uid":"a"}"#, r#"{"order_uid":"b"}"#];
    let lines = TempFile::new("mark.ndjson");
    fs::write(
        &lines.0,
        format!("\u{feff}{}\r\n\r\n{}", orders[0], orders[1]),
    )
    .unwrap();
    let array = TempFile::new("mark.json");
    fs::write(
        &array.0,
        format!("\u{feff}[\r\n{}\r\n]\r\n", orders.join(",\r\n")),
    )
    .unwrap();
    let wide = TempFile::new("wide.ndjson");
    let utf16 = fs::read_to_string(&lines.0).unwrap();
    let utf16: Vec<u8> = utf16.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&wide.0, utf16).unwrap();
    for file in [&lines, &array] {
        let output = succeeded(&producer(&[
            "send",
            "--topic",
            &topic.name,
            "--file",
            file.path(),
        ]));
        assert!(output.contains("acknowledged 2, failed 0"), "{output}");
    }
    let output = producer(&["send", "--topic", &topic.name, "--file", wide.path()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors.contains("expected UTF-8, found UTF-16 or UTF-32; convert the file: iconv"),
        "{errors}"
    );

    let mut values: Vec<_> = topic
        .records()
        .into_iter()
        .map(|record| record.value.unwrap())
        .collect();
    values.sort();
    let [a, b] = orders.map(|order| order.as_bytes().to_vec());
    assert_eq!(values, [a.clone(), a, b.clone(), b]);
}

#[test]
fn the_seed_fixes_generated_orders_and_their_partitions() {
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
        let output = succeeded(&producer(&send));
        assert!(
            output.contains("seed 11") && output.contains("sent 100 (100 orders"),
            "{output}"
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
        let order = decode(value.as_deref().unwrap(), UnknownFields::Reject)
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
fn orders_up_to_the_limit_of_the_topic_are_sent() {
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

    // A record above the client's limit fails alone.
    fs::write(&file.0, [order(9 << 20), order(1)].concat()).unwrap();
    let output = producer(&["send", "--topic", &topic.name, "--file", file.path()]);
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(
        summary
            .contains("sent 2 (2 orders, 0 invalid JSON, 0 gibberish), acknowledged 1, failed 1"),
        "{summary}"
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("MessageSizeTooLarge"));
}

#[test]
fn each_record_starts_its_own_trace_if_traces_are_enabled() {
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
    // The parts are: version, trace id, span id, and flags with the sampled bit set.
    for trace in traces {
        let parts: Vec<_> = trace.split('-').map(str::len).collect();
        assert!(parts == [2, 32, 16, 2] && trace.ends_with("-01"), "{trace}");
    }
}

#[test]
fn version_is_printed() {
    let output = succeeded(&producer(&["--version"]));
    assert_eq!(
        output.trim(),
        format!("producer {}", env!("CARGO_PKG_VERSION"))
    );
}
