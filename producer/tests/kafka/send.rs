//! Sent records arrive complete and unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::{env, fs};

use shared::order::{Reason, UnknownFields, decode};

use super::harness::*;

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

        // Each line of both files holds one order. In the array, brackets and commas surround the
        // orders.
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
            if let Err(refusal) = decode(bytes, UnknownFields::Refuse) {
                *reasons.entry(refusal.reason).or_insert(0) += 1;
                if refusal.reason == Reason::MalformedJson {
                    assert_eq!(key, None);
                    *bad.entry(bytes[0] == b'{').or_insert(0) += 1;
                    continue;
                }
            }
            orders.push((key, value));
        }
        // The second round also finds the records of the first, because both files hold the same
        // orders.
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

/// A file as Windows editors and tools write it.
#[test]
fn file_with_a_byte_order_mark_arrives_without_it() {
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
        let said = succeeded(&producer(&[
            "send",
            "--topic",
            &topic.name,
            "--file",
            file.path(),
        ]));
        assert!(said.contains("acknowledged 2, failed 0"), "{said}");
    }
    let output = producer(&["send", "--topic", &topic.name, "--file", wide.path()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("UTF-8 is expected; convert it: iconv"),
        "{said}"
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
        let order = decode(value.as_deref().unwrap(), UnknownFields::Refuse)
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

    // A record that no broker would accept fails alone.
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
    // The parts are: version, trace id, span id, and flags with the sampled bit set.
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
