//! `producer erase`.

use std::fs;

use super::harness::*;

/// Returns the keys of the topic's records, sorted, and asserts that every value is null.
fn erased(topic: &Topic) -> Vec<String> {
    let records = topic.records().into_iter();
    let mut keys: Vec<_> = records
        .map(|record| {
            assert_eq!(record.value, None);
            String::from_utf8(record.key.unwrap()).unwrap()
        })
        .collect();
    keys.sort();
    keys
}

#[test]
fn an_erasure_is_a_record_with_a_null_value() {
    let topic = Topic::create("erase");
    let arguments = ["erase", "--yes", "--topic", &topic.name, "order-1"];
    let output = succeeded(&producer(&[&arguments[..], &["order_2"]].concat()));
    assert!(
        output.contains("sent 2 (2 erasures), acknowledged 2"),
        "{output}"
    );
    assert_eq!(erased(&topic), ["order-1", "order_2"]);
}

#[test]
fn uids_of_a_file_and_of_standard_input_are_erased_once_each() {
    let topic = Topic::create("erase-file");
    let file = TempFile::new("uids.txt");
    fs::write(&file.0, "\u{feff}a\r\n\r\nb\r\nc").unwrap();
    let arguments = ["erase", "-y", "--json", "--topic", &topic.name];
    for (more, input, count) in [
        (&["--file", file.path(), "-", "d", "a"][..], "b\ne\n", 5),
        (&["--file", "-"], "-\n", 1),
    ] {
        let output = succeeded(&producer_with_input(
            &[&arguments[..], more].concat(),
            input,
        ));
        let summary: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(summary["erasures"], count, "{output}");
        assert_eq!(summary["acknowledged"], count, "{output}");
    }
    assert_eq!(erased(&topic), ["-", "a", "b", "c", "d", "e"]);
}

#[test]
fn nothing_is_erased_without_a_confirmation_or_with_a_wrong_line() {
    let topic = Topic::create("erase-no");
    let file = TempFile::new("wrong.txt");
    fs::write(&file.0, "a\nme@example.com\n").unwrap();
    let arguments = ["erase", "--topic", &topic.name];
    for (more, code, expected) in [
        (
            &["a"][..],
            1,
            "error: cannot ask whether to erase 1 order (topic ",
        ),
        (
            &["-"],
            2,
            "error: standard input holds the uids and cannot answer a question; add --yes\n",
        ),
        (
            &["-", "--file", "-", "--yes"],
            2,
            "error: standard input can be read once; write `-` once\n",
        ),
        (
            &["--file", file.path(), "--yes"],
            1,
            "line 2: not an order uid: 1 to 64 of A-Z a-z 0-9 _ - are expected; write one uid per \
             line\n",
        ),
        (
            &["--file", "/dev/null", "--yes"],
            1,
            "error: no order to erase: the input is empty; write one uid per line\n",
        ),
    ] {
        let output = producer(&[&arguments[..], more].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{more:?}: {errors}");
        assert!(errors.contains(expected), "{more:?}: {errors}");
        assert!(!errors.contains("example.com"), "{errors}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(erased(&topic), Vec::<String>::new());
}

#[test]
fn an_order_that_the_api_still_returns_fails_the_run() {
    let topic = Topic::create("erase-verify");
    // Nothing listens there.
    #[rustfmt::skip]
    let output = producer(&[
        "erase", "--yes", "--json", "--topic", &topic.name, "--verify", "http://127.0.0.1:1/",
        "--timeout", "1s", "a",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.starts_with("error: http://127.0.0.1:1: the api reports as erased 0 of 1 orders"),
        "{errors}"
    );
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["acknowledged"], &summary["verified"]),
        (&1.into(), &serde_json::Value::Null)
    );
    assert_eq!(erased(&topic), ["a"]);
}
