//! Reads orders from a file: a JSON array, or one JSON document after another (NDJSON).

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Limit of whitespace bytes before the first order.
const MAX_BLANKS: usize = 1 << 16;

/// Passes each order in `file` to `sink`, with the share of the file that was read, until `sink`
/// breaks.
///
/// # Errors
/// If the file cannot be read or is not JSON. A JSON error names the line.
pub(crate) fn read_file(
    file: File,
    mut sink: impl FnMut(&str, f64) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let size = file.metadata()?.len();
    let read = Cell::new(0_u64);
    let reader = BufReader::with_capacity(1 << 16, Counted { file, read: &read });
    read_orders(reader, |json| {
        sink(json, read.get() as f64 / size.max(1) as f64)
    })
}

/// Counts the bytes that were read.
struct Counted<'a> {
    file: File,
    read: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.read.set(self.read.get() + bytes as u64);
        Ok(bytes)
    }
}

/// Passes each order of a JSON array, or of NDJSON, to `sink` until `sink` breaks.
fn read_orders(
    mut reader: impl BufRead,
    mut sink: impl FnMut(&str) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let mut start = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut start)?;
    let mut reader = without_byte_order_mark(&start)?.chain(reader);
    let blanks = read_blanks(&mut reader)?;
    let is_array = match reader.fill_buf()?.first() {
        Some(byte) => *byte == b'[',
        None => anyhow::bail!("the file is empty; expected a JSON array or one order per line"),
    };
    // The whitespace is included, so that errors name the right line.
    let mut source = serde_json::Deserializer::from_reader(blanks.as_slice().chain(reader));
    if is_array {
        let mut stopped = false;
        let elements = Elements {
            sink,
            stopped: &mut stopped,
        };
        match elements
            .deserialize(&mut source)
            .and_then(|()| source.end())
        {
            Err(_) if stopped => {}
            outcome => outcome?,
        }
    } else {
        for json in source.into_iter::<Box<RawValue>>() {
            if sink(json?.get()).is_break() {
                break;
            }
        }
    }
    Ok(())
}

/// Strips the byte order mark that some editors write at the start of a UTF-8 file.
///
/// # Errors
/// If the file is UTF-16 or UTF-32, with or without a byte order mark. A zero byte reveals the
/// encoding, because every JSON document begins with an ASCII character.
fn without_byte_order_mark(start: &[u8]) -> anyhow::Result<&[u8]> {
    let is_wide = matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) || start.contains(&0);
    anyhow::ensure!(
        !is_wide,
        "expected UTF-8, found UTF-16 or UTF-32; convert the file: iconv -f UTF-16 -t UTF-8"
    );
    Ok(start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start))
}

/// Reads whitespace up to the first other byte.
fn read_blanks(reader: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut blanks = Vec::new();
    loop {
        let bytes = reader.fill_buf()?;
        let end = bytes.iter().position(|byte| !byte.is_ascii_whitespace());
        let count = end.unwrap_or(bytes.len());
        blanks.extend_from_slice(&bytes[..count]);
        let is_last = bytes.is_empty() || end.is_some();
        reader.consume(count);
        anyhow::ensure!(
            blanks.len() <= MAX_BLANKS,
            "the file begins with more than {MAX_BLANKS} whitespace characters; expected orders"
        );
        if is_last {
            return Ok(blanks);
        }
    }
}

/// Reads a JSON array element by element.
struct Elements<'a, F> {
    sink: F,
    stopped: &'a mut bool,
}

impl<'de, F: FnMut(&str) -> ControlFlow<()>> DeserializeSeed<'de> for Elements<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(&str) -> ControlFlow<()>> Visitor<'de> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of orders")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(json) = seq.next_element::<Box<RawValue>>()? {
            if (self.sink)(json.get()).is_break() {
                // In serde, an error is the only way to leave an array early.
                *self.stopped = true;
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<String>> {
        let mut orders = Vec::new();
        read_orders(text.as_bytes(), |json| {
            orders.push(json.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(orders)
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn array_and_lines_are_distinguished() {
        let orders = [
            r#"{"order_uid": "a",  "x": 1e400}"#,
            r#"{"order_uid":"b","order_uid":"b"}"#,
            "7",
        ];
        assert_eq!(
            read(&format!(" \n[{}]\n", orders.join(" ,\n"))).unwrap(),
            orders
        );
        assert_eq!(read(&format!("\n{}\n", orders.join("\n"))).unwrap(), orders);
        assert_eq!(read(orders[0]).unwrap(), &orders[..1]);
        assert_eq!(read("[]").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn orders_before_a_syntax_error_are_read_and_the_error_names_its_line() {
        let mut orders = 0;
        let outcome = read_orders("[{},\n{},\n{\"a\" 1}]".as_bytes(), |_| {
            orders += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(orders, 2);
        assert!(outcome.unwrap_err().to_string().contains("line 3 column 6"));
        assert!(error("{}\n{}\n{\"a\":\n").contains("line 4"));
        assert!(error("[{}\n{}]").contains("line 2"));
        assert!(error("[{}] x").contains("trailing characters at line 1"));
        assert!(error("[{},]").contains("line 1 column 5"));
    }

    #[test]
    fn text_that_is_not_json_is_an_error() {
        assert!(error("").starts_with("the file is empty"));
        assert!(error(" \n").starts_with("the file is empty"));
        assert!(error("\u{feff}").starts_with("the file is empty"));
        assert_eq!(
            error(&" ".repeat(MAX_BLANKS + 1)),
            "the file begins with more than 65536 whitespace characters; expected orders"
        );
        assert!(error("hello").contains("line 1"));
        // A byte order mark is valid only at the start of the file.
        assert!(error("\u{feff}\u{feff}[]").contains("line 1"));
        assert!(error("{}\n\u{feff}{}").contains("line 2"));
        assert!(read_orders(&b"[\"\xff\"]"[..], |_| ControlFlow::Continue(())).is_err());
    }

    /// Returns one byte per read, as a pipe may.
    struct Pipe<'a>(&'a [u8]);

    impl Read for Pipe<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn byte_order_mark_line_ends_and_empty_lines_are_ignored() {
        let orders = [r#"{"order_uid":"a"}"#, r#"{"order_uid":"b"}"#];
        let [a, b] = orders;
        for mark in ["", "\u{feff}"] {
            for text in [
                format!("{a}\n{b}"),
                format!("{a}\n{b}\n"),
                format!("{a}\r\n{b}\r\n"),
                format!("\r\n\n{a}\r\n\r\n \t\n{b}\n\n\n"),
                format!("[{a},{b}]"),
                format!("\r\n[\r\n{a},\r\n{b}\r\n]\r\n"),
                format!("{}[{a},{b}]", "\n".repeat(MAX_BLANKS)),
            ] {
                let text = format!("{mark}{text}");
                assert_eq!(read(&text).unwrap(), orders, "{text:?}");
                let mut piped = Vec::new();
                let reader = BufReader::new(Pipe(text.as_bytes()));
                read_orders(reader, |json| {
                    piped.push(json.to_owned());
                    ControlFlow::Continue(())
                })
                .unwrap();
                assert_eq!(piped, orders, "{text:?}");
            }
        }
        // The mark is not part of a line. Leading whitespace counts as lines.
        assert!(error("\u{feff}[1 2]").contains("line 1 column 4"));
        assert!(error("\u{feff}\r\n\r\n{}\r\n{\"a\"").contains("line 4"));
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
                    let outcome = read_orders(&bytes[..], |_| ControlFlow::Continue(()));
                    let error = outcome.unwrap_err().to_string();
                    assert!(
                        error.contains("convert the file: iconv -f UTF-16 -t UTF-8"),
                        "{error}"
                    );
                }
            }
        }
    }

    #[test]
    fn reading_stops_when_the_sink_breaks() {
        for text in ["[1,2,3]", "1\n2\n3", "[1,2,nonsense", "1\n2\nnonsense"] {
            let mut seen = Vec::new();
            let outcome = read_orders(text.as_bytes(), |json| {
                seen.push(json.to_owned());
                if seen.len() == 2 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            assert!(outcome.is_ok());
            assert_eq!(seen, ["1", "2"]);
        }
    }
}
