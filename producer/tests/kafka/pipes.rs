//! Standard input and output, files with faults, and output for scripts.

use std::io::Write;
use std::process::Stdio;
use std::time::Instant;
use std::{fs, thread};

use serde_json::Value;

use super::harness::*;

/// Returns the keys of the topic's records, sorted.
fn keys(topic: &Topic) -> Vec<String> {
    let records = topic.records().into_iter();
    let mut keys: Vec<_> = records
        .map(|record| String::from_utf8(record.key.unwrap()).unwrap())
        .collect();
    keys.sort();
    keys
}

#[test]
fn generated_orders_pass_through_a_pipe() {
    let topic = Topic::create("pipe");
    for (format, count) in [("ndjson", 30), ("array", 60)] {
        #[rustfmt::skip]
        let generated = producer(&[
            "generate", "-n", "30", "--seed", "3", "-o", "-", "--format", format, "--json",
        ]);
        let orders = succeeded(&generated);
        // The summary must not be between the orders.
        let summary: Value = serde_json::from_slice(&generated.stderr).unwrap();
        assert_eq!(summary["orders"], 30);
        assert_eq!(
            (&summary["seed"], &summary["file"]),
            (&3.into(), &"-".into())
        );
        let send = ["send", "--topic", &topic.name, "--file", "-", "--json"];
        let output = producer_with_input(&send, &orders);
        let summary: Value = serde_json::from_str(&succeeded(&output)).unwrap();
        assert_eq!(summary["topic"], *topic.name);
        for (field, expected) in [("sent", 30), ("orders", 30), ("acknowledged", 30)] {
            assert_eq!(summary[field], expected, "{field}: {summary}");
        }
        // Standard error is not a terminal.
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!(topic.records().len(), count);
    }
}

#[test]
fn bad_lines_are_skipped_counted_and_reported() {
    let topic = Topic::create("skip");
    let file = TempFile::new("skip.ndjson");
    let bad = "{\"order_uid\":\"secret\n".repeat(30);
    let text = format!("{{\"order_uid\":\"a\"}}\n{bad}\r\n{{\"order_uid\":\"b\"}}");
    fs::write(&file.0, text).unwrap();
    let send = ["send", "--topic", &topic.name, "--file", file.path()];

    let output = producer(&send);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(
        errors,
        format!(
            "error: cannot read orders from {}: line 2 column 20: EOF while parsing a string; \
             correct the file, or skip this with --skip-bad\n",
            file.path()
        )
    );
    assert_eq!(keys(&topic), ["a"]);

    let output = producer(&[&send[..], &["--skip-bad", "--json"]].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{errors}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (field, expected) in [
        ("orders", 2),
        ("skipped", 30),
        ("acknowledged", 2),
        ("failed", 0),
    ] {
        assert_eq!(summary[field], expected, "{field}: {summary}");
    }
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 21, "{errors}");
    let first = format!("warning: {}: skipped line 2 column 20: EOF", file.path());
    assert!(lines[0].starts_with(&first), "{errors}");
    assert!(
        lines[20].ends_with("skipped 10 more places, not listed"),
        "{errors}"
    );
    assert!(!errors.contains("secret"));
    assert_eq!(keys(&topic), ["a", "a", "b"]);
}

#[test]
fn an_interrupt_ends_the_wait_for_standard_input() {
    let topic = Topic::create("wait");
    let child = command(&["send", "--topic", &topic.name, "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = KillOnDrop(Some(child));
    let mut input = child.0.as_mut().unwrap().stdin.take().unwrap();
    // The last order is not complete.
    input
        .write_all(b"{\"order_uid\":\"a\"}\n{\"order_uid\":")
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    while topic.records().is_empty() {
        assert!(Instant::now() < deadline, "the first record did not arrive");
    }
    let output = child.end_by("TERM");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{errors}");
    assert_eq!(errors, "");
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(summary.contains("sent 1 (1 orders"), "{summary}");
    drop(input);
}

/// Peak of the resident memory of a process, in bytes.
fn peak(pid: u32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// 128 MiB through a pipe: the memory holds one line and what is in flight.
#[test]
fn memory_does_not_grow_with_the_input() {
    let topic = Topic::create("memory");
    let child = command(&["send", "--topic", &topic.name, "--file", "-", "--skip-bad"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut child = KillOnDrop(Some(child));
    let mut input = child.0.as_mut().unwrap().stdin.take().unwrap();
    let writing = thread::spawn(move || {
        // Only a few are orders, so that the broker stays idle: blanks, faults and orders.
        let blanks = " ".repeat(1 << 20);
        let fault = "x".repeat(1 << 20);
        for _ in 0..64 {
            write!(input, "{blanks}\n{fault}\n{{\"order_uid\":\"a\"}}\n").unwrap();
        }
        peak(pid)
    });
    let peak = writing.join().unwrap().unwrap();
    let output = child.0.take().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(topic.records().len(), 64);
    assert!(peak < 64 << 20, "{} MiB", peak >> 20);
}
