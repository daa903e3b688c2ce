//! What to send: records from a file, from the generator, or to erase orders.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use shared::order::OrderUid;
use shared::order::sample::{Generator, broken_json, gibberish};

use crate::generate::Orders;

/// One bad record follows so many orders, so that bad and good ones reach the workers together.
const ORDERS_PER_BAD_RECORD: u64 = 10;

/// What a record is, for the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Order,
    InvalidJson,
    Gibberish,
    Erasure,
}

/// A record to send.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Record {
    /// The record of an order, its bytes as they are, keyed by its uid where it has one.
    fn order(json: impl Into<Vec<u8>>) -> Self {
        let json = json.into();
        Self {
            kind: Kind::Order,
            key: uid_of(&json),
            value: Some(json),
        }
    }

    fn erasure(uid: &OrderUid) -> Self {
        Self {
            kind: Kind::Erasure,
            key: Some(uid.to_string()),
            value: None,
        }
    }

    /// How many bytes of key and value it has.
    pub(crate) fn size(&self) -> usize {
        self.key.as_ref().map_or(0, String::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// The uid of an order that may be invalid in any way.
fn uid_of(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Keyed<'a> {
        #[serde(borrow)]
        order_uid: Cow<'a, str>,
    }
    // A derived struct would take an array of its fields, too.
    let is_object = json.trim_ascii_start().starts_with(b"{");
    let keyed: Keyed<'_> = is_object.then(|| serde_json::from_slice(json).ok())??;
    Some(keyed.order_uid.into_owned())
}

/// Where the records come from.
pub(crate) enum Source {
    /// A file of orders, open, and its name.
    File(File, PathBuf),
    /// The generator.
    Orders(Box<Orders>),
    /// The orders to erase.
    Erase(Vec<OrderUid>),
}

impl Source {
    /// The orders of a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let file = File::open(&path)
            .with_context(|| format!("cannot read orders from {}", path.display()))?;
        Ok(Self::File(file, path))
    }

    /// Hands every record to `sink` until it breaks; the second argument is the share of the work that is behind.
    ///
    /// # Errors
    /// When the file cannot be read, with the line.
    pub(crate) fn for_each(
        self,
        mut sink: impl FnMut(Record, f64) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::File(file, path) => read_file(file, sink)
                .with_context(|| format!("cannot read orders from {}", path.display())),
            Self::Orders(mut orders) => {
                let count = orders.left() as f64;
                while let Some(json) = orders.next() {
                    let done = 1.0 - orders.left() as f64 / count;
                    if sink(Record::order(json), done).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Self::Erase(uids) => {
                let count = uids.len() as f64;
                for (index, uid) in uids.iter().enumerate() {
                    if sink(Record::erasure(uid), (index + 1) as f64 / count).is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Records that no worker can read, to mix with the orders.
pub(crate) struct BadRecords {
    invalid_json: u64,
    gibberish: u64,
    generator: Generator,
    rng: StdRng,
    orders: u64,
}

impl BadRecords {
    /// So many of each kind.
    pub(crate) fn new(invalid_json: u64, gibberish: u64) -> Self {
        // These bytes never become an order, so it does not matter that they are the same each time.
        Self {
            invalid_json,
            gibberish,
            generator: Generator::new(0, 1..=1),
            rng: StdRng::seed_from_u64(0),
            orders: 0,
        }
    }

    /// The bad record that is due after one more order, if any.
    pub(crate) fn after_order(&mut self) -> Option<Record> {
        self.orders += 1;
        if self.orders.is_multiple_of(ORDERS_PER_BAD_RECORD) {
            self.next()
        } else {
            None
        }
    }
}

impl Iterator for BadRecords {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let (kind, value) = if self.invalid_json > 0 && self.invalid_json >= self.gibberish {
            self.invalid_json -= 1;
            (
                Kind::InvalidJson,
                broken_json(&self.generator.next()?, &mut self.rng),
            )
        } else if self.gibberish > 0 {
            self.gibberish -= 1;
            (Kind::Gibberish, gibberish(&mut self.rng))
        } else {
            return None;
        };
        Some(Record {
            kind,
            key: None,
            value: Some(value),
        })
    }
}

/// Streams a file, so that its size does not matter.
fn read_file(
    file: File,
    mut sink: impl FnMut(Record, f64) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let size = file.metadata()?.len();
    let read = Cell::new(0_u64);
    let reader = BufReader::with_capacity(1 << 16, Counted { file, read: &read });
    read_orders(reader, |json| {
        sink(Record::order(json), read.get() as f64 / size.max(1) as f64)
    })
}

/// Counts the bytes read.
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

/// Hands the text of every order to `sink` until it breaks: of a JSON array, or of one text after another (NDJSON).
fn read_orders(
    mut reader: impl BufRead,
    mut sink: impl FnMut(&str) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let start = reader.fill_buf()?;
    anyhow::ensure!(!start.is_empty(), "the file is empty");
    let first = start
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .copied();
    let first = first.with_context(|| format!("it begins with {} blanks", start.len()))?;
    let mut source = serde_json::Deserializer::from_reader(reader);
    if first == b'[' {
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

/// Reads an array element by element.
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
                // serde knows no way to leave an array early but an error.
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
    fn array_and_lines_are_told_apart() {
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
    fn orders_before_a_fault_are_read_and_the_fault_has_its_line() {
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
    fn what_is_no_json_is_an_error() {
        assert_eq!(error(""), "the file is empty");
        assert_eq!(error(" \n"), "it begins with 2 blanks");
        assert!(error("hello").contains("line 1"));
        assert!(error("\u{feff}[]").contains("line 1"));
        assert!(read_orders(&b"[\"\xff\"]"[..], |_| ControlFlow::Continue(())).is_err());
        let missing = Source::open("/nowhere/at/all.json".into());
        let text = format!("{:#}", missing.err().unwrap());
        assert!(
            text.starts_with("cannot read orders from /nowhere/at/all.json: "),
            "{text}"
        );
    }

    #[test]
    fn reading_stops_where_the_sink_breaks() {
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

    #[test]
    fn key_is_the_uid_where_there_is_one() {
        for (json, key) in [
            (
                r#"{"x":[{"order_uid":"no"}],"order_uid":"a-1"}"#,
                Some("a-1"),
            ),
            (r#" {"order_uid":"\u0061"}"#, Some("a")),
            (r#"{"order_uid":""}"#, Some("")),
            (r#"{"order_uid":7}"#, None),
            (r#"{"order_uid":null}"#, None),
            (r#"{"uid":"a"}"#, None),
            (r#"["a"]"#, None),
            (r#""a""#, None),
        ] {
            let record = Record::order(json);
            assert_eq!(record.key.as_deref(), key, "{json}");
            assert_eq!(record.value.as_deref(), Some(json.as_bytes()));
        }
    }

    #[test]
    fn bad_records_follow_the_orders_and_none_is_forgotten() {
        let mut bad = BadRecords::new(3, 2);
        let early: Vec<_> = (1..=25)
            .filter_map(|order| Some((order, bad.after_order()?.kind)))
            .collect();
        assert_eq!(early, [(10, Kind::InvalidJson), (20, Kind::InvalidJson)]);
        let late: Vec<_> = bad.map(|record| (record.kind, record.key)).collect();
        assert_eq!(
            late,
            [
                (Kind::Gibberish, None),
                (Kind::InvalidJson, None),
                (Kind::Gibberish, None)
            ]
        );
    }
}
