use super::*;

/// Returns one byte per read, as a pipe may.
struct Pipe<'a>(&'a [u8]);

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

/// Returns the orders and the faults of a file, each as text.
fn read_all(reader: impl BufRead) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let mut file = OrderFile::new(reader)?;
    let (mut orders, mut faults) = (Vec::new(), Vec::new());
    while let Some(next) = file.next()? {
        match next {
            Ok(order) => orders.push(String::from_utf8(order).unwrap()),
            Err(fault) => faults.push(fault.to_string()),
        }
    }
    Ok((orders, faults))
}

/// Returns the orders of a file without faults.
#[track_caller]
fn orders(text: &str) -> Vec<String> {
    let (orders, faults) = read_all(text.as_bytes()).unwrap();
    assert!(faults.is_empty(), "{text:?}: {faults:?}");
    let piped = read_all(io::BufReader::with_capacity(3, Pipe(text.as_bytes()))).unwrap();
    assert_eq!(piped, (orders.clone(), faults), "{text:?}");
    orders
}

#[track_caller]
fn assert_faults(text: &str, orders: &[&str], faults: &[&str]) {
    let found = read_all(text.as_bytes()).unwrap();
    assert_eq!(found.0, orders, "{text:?}");
    assert_eq!(found.1, faults, "{text:?}");
}

fn error(bytes: &[u8]) -> String {
    read_all(bytes).unwrap_err().to_string()
}

#[test]
fn array_and_lines_are_distinguished() {
    let expected = [
        r#"{"order_uid": "a",  "x": 1e400}"#,
        r#"{"order_uid":"b","order_uid":"b"}"#,
        r#"{"x":"]},{\"[","y":[{},[]]}"#,
        "[7]",
        "7",
        r#""a, ]""#,
    ];
    assert_eq!(
        orders(&format!(" \n[{}]\n", expected.join(" ,\n"))),
        expected
    );
    assert_eq!(orders(&format!("[{}]", expected.join(","))), expected);
    assert_eq!(orders(&format!("\n{}\n", expected.join("\n"))), expected);
    assert_eq!(orders(expected[0]), &expected[..1]);
    assert_eq!(orders("{}{} {}"), ["{}", "{}", "{}"]);
    assert_eq!(orders("[]"), Vec::<String>::new());
}

#[test]
fn an_order_may_span_lines() {
    let order =
        "{\n  \"order_uid\": \"a\",\n  \"items\": [\n    {\n      \"rid\": \"b\"\n    }\n  ]\n}";
    assert_eq!(orders(order), [order]);
    assert_eq!(orders(&format!("{order}\n{order}\n")), [order, order]);
    assert_eq!(
        orders(&format!("[\n{order},\n{order}\n]\n")),
        [order, order]
    );
    // Without indentation, a line may begin with a brace or be an object.
    let flat = "{\n\"order_uid\":\"a\",\n\"items\":[\n{\n\"rid\":\"b\"\n},\n{\"rid\":\"c\"}\n]\n}";
    assert_eq!(orders(&format!("{flat}\n{flat}\n")), [flat, flat]);
    assert_eq!(orders(&format!("[{flat},\n{flat}]")), [flat, flat]);
}

#[test]
fn byte_order_mark_line_ends_and_empty_lines_are_ignored() {
    let [a, b] = [r#"{"order_uid":"a"}"#, r#"{"order_uid":"b"}"#];
    for mark in ["", "\u{feff}"] {
        for text in [
            format!("{a}\n{b}"),
            format!("{a}\n{b}\n"),
            format!("{a}\r\n{b}\r\n"),
            format!("\r\n\n{a}\r\n\r\n \t\n{b}\n\n\n"),
            format!("[{a},{b}]"),
            format!("\r\n[\r\n{a},\r\n{b}\r\n]\r\n"),
            format!("{}[{a},{b}]", "\n".repeat(100_000)),
        ] {
            assert_eq!(
                orders(&format!("{mark}{text}")),
                [a, b],
                "{mark:?}{text:.100}"
            );
        }
    }
    // The mark is not part of a line. It is valid only at the start of the file.
    assert_faults(
        "\u{feff}[1 2]",
        &[],
        &["line 1 column 4 (element 1 of the array): trailing characters"],
    );
    assert_faults(
        "{}\n\u{feff}{}",
        &["{}"],
        &["line 2 column 1: expected value"],
    );
}

#[test]
fn a_fault_of_a_line_is_at_its_place_and_ends_with_the_line() {
    let (a, b) = (r#"{"order_uid":"a"}"#, r#"{"order_uid":"b"}"#);
    for (broken, fault) in [
        (r#"{"order_uid" "x"}"#, "column 14: expected `:`"),
        (
            r#"{"order_uid":"x""#,
            "column 16: EOF while parsing an object",
        ),
        (
            r#"{"order_uid":"x"#,
            "column 15: EOF while parsing a string",
        ),
        (
            r#"{"items":[{"rid":"x"}"#,
            "column 21: EOF while parsing a list",
        ),
        (r#"{"items":["#, "column 10: EOF while parsing a list"),
        (r#"{"order_uid":"x"}}"#, "column 18: trailing characters"),
        (r#"{"order_uid":"x"} {"a" 1}"#, "column 24: expected `:`"),
        (r#"{"order_uid":"x"]"#, "column 17: expected `,` or `}`"),
        (r#"{"a" 1} {"order_uid":"x"}"#, "column 6: expected `:`"),
        ("hello, world", "column 1: expected value"),
        ("}", "column 1: expected value"),
    ] {
        let first = match broken.contains("} {\"a\" 1}") {
            true => vec![r#"{"order_uid":"x"}"#],
            false => vec![],
        };
        let faults = [format!("line 3 {fault}")];
        for end in ["\n", "\r\n"] {
            let text = format!("{a}{end}{end}{broken}{end}{b}{end}");
            let orders = [&[a][..], &first, &[b]].concat();
            assert_faults(&text, &orders, &[&faults[0]]);
        }
        // The first line does not decide how the others are read.
        let faults = [format!("line 1 {fault}")];
        let text = format!("{broken}\n{a}\n{b}");
        assert_faults(&text, &[&first[..], &[a, b]].concat(), &[&faults[0]]);
        // The last line of the file.
        let faults = [format!("line 2 {fault}")];
        assert_faults(
            &format!("{a}\n{broken}"),
            &[&[a][..], &first].concat(),
            &[&faults[0]],
        );
    }
}

#[test]
fn a_fault_of_an_array_has_the_number_of_the_element() {
    let (a, b) = (r#"{"order_uid":"a"}"#, r#"{"order_uid":"b"}"#);
    for (broken, fault) in [
        (r#"{"order_uid" "x"}"#, "column 14"),
        (r#"{"items":[{"rid":"x"}}"#, "column 22"),
        (r#"{"order_uid":"x""#, "column 17"),
        ("nonsense", "column 2"),
    ] {
        let text = format!("[{a},\n{broken},\n{b}]\n");
        let (orders, faults) = read_all(text.as_bytes()).unwrap();
        assert_eq!(orders, [a, b], "{text}");
        let place = format!("line 2 {fault} (element 2 of the array): ");
        assert!(
            faults.len() == 1 && faults[0].starts_with(&place),
            "{faults:?} {place}"
        );
        // All on one line.
        let text = format!("[{a},{broken},{b}]");
        if broken.ends_with('}') {
            let (orders, faults) = read_all(text.as_bytes()).unwrap();
            assert_eq!(
                (orders, faults.len()),
                (vec![a.to_owned(), b.to_owned()], 1)
            );
        }
    }
    // The last element.
    let text = format!("[\n{a},\n{{\"order_uid\":7\n]");
    let (orders, faults) = read_all(text.as_bytes()).unwrap();
    assert_eq!((orders, faults.len()), (vec![a.to_owned()], 1));
    assert!(
        faults[0].starts_with("line 3 column 14 (element 2"),
        "{faults:?}"
    );
}

#[test]
fn a_fault_between_the_elements_loses_none_of_them() {
    let missing = "expected `,` or `]`";
    for (text, orders, fault) in [
        (
            "[{}\n{}]",
            &["{}", "{}"][..],
            format!("line 2 column 1: {missing}"),
        ),
        (
            "[{} x, 1]",
            &["{}", "1"],
            format!("line 1 column 5: {missing}"),
        ),
        (
            "[{},]",
            &["{}"],
            "line 1 column 5: expected an order after the comma".to_owned(),
        ),
        (
            "[{}] x {}",
            &["{}"],
            "line 1 column 6: expected nothing after the array".to_owned(),
        ),
        (
            "[{},\n{}\n",
            &["{}", "{}"],
            "line 3 column 1: the file ends inside of the array; expected `]`".to_owned(),
        ),
        (
            "[,1]",
            &["1"],
            "line 1 column 2 (element 1 of the array): EOF while parsing a value".to_owned(),
        ),
    ] {
        assert_faults(text, orders, &[&fault]);
    }
}

#[test]
fn text_that_is_no_order_at_all_is_an_error() {
    for empty in ["", " \n", "\u{feff}"] {
        assert_eq!(
            error(empty.as_bytes()),
            "it is empty; expected a JSON array, or one order per line"
        );
    }
    let (orders, faults) = read_all(&b"[\"\xff\"]"[..]).unwrap();
    assert_eq!((orders.len(), faults.len()), (0, 1));
}

#[test]
fn an_order_beyond_the_limit_is_a_fault_of_its_own() {
    for text in [
        format!("{{\"x\":\"{}\"}}\n{{}}\n", "x".repeat(70_000)),
        format!("[{{\"x\":\"{}\"}},\n{{}}]\n", "x".repeat(70_000)),
        format!("\"{}\"\n{{}}\n", "x".repeat(70_000)),
    ] {
        let (orders, faults) = read_all(text.as_bytes()).unwrap();
        assert_eq!(orders, ["{}"]);
        assert!(faults[0].ends_with(TOO_LARGE), "{faults:?}");
    }
}

#[test]
fn utf_16_and_utf_32_are_named_in_the_error() {
    for text in ["[]", "{\"order_uid\":\"a\"}\r\n"] {
        for mark in ["", "\u{feff}"] {
            let text = format!("{mark}{text}");
            let utf16: Vec<u16> = text.encode_utf16().collect();
            let little: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big = utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            let utf32 = text.chars().flat_map(|char| u32::from(char).to_le_bytes());
            for bytes in [little, big, utf32.collect()] {
                let error = error(&bytes);
                assert!(
                    error.contains("convert the file: iconv -f UTF-16 -t UTF-8"),
                    "{error}"
                );
            }
        }
    }
}
