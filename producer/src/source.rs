//! Records to send: orders from a file, generated orders, or erasures.

use std::ops::ControlFlow;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;
use shared::order::OrderUid;
use shared::order::sample::{Generator, broken_json, gibberish};

use crate::generate::Orders;
use crate::input::Input;
use crate::order_file::{Fault, OrderFile, uid_of};

/// Number of orders per bad record, so that good and bad records reach the workers together.
const ORDERS_PER_BAD_RECORD: u64 = 10;

/// Kind of a record, for the summary.
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
    /// Creates the record of an order: unchanged bytes, with the uid as key if there is one.
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

    /// Size of key and value, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.key.as_ref().map_or(0, String::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Source of the records.
pub(crate) enum RecordSource {
    /// A file of orders.
    File(Input),
    /// The generator.
    Orders(Box<Orders>),
    /// The orders to erase.
    Erase(Vec<OrderUid>),
}

/// What a source holds: a record, or a place of a file that is not an order.
pub(crate) type Found = Result<Record, Fault>;

impl RecordSource {
    /// Passes what the source holds to `sink` until `sink` breaks. The second argument is the
    /// finished share of the work, from 0 to 1; `None` if the size of the file is not known.
    ///
    /// # Errors
    /// If the file cannot be read. The error names the file.
    pub(crate) fn for_each(
        self,
        mut sink: impl FnMut(Found, Option<f64>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::File(input) => {
                let name = input.name.clone();
                read_file(input, sink).with_context(|| format!("cannot read orders from {name}"))
            }
            Self::Orders(mut orders) => {
                let count = orders.left() as f64;
                while let Some(json) = orders.next() {
                    let done = 1.0 - orders.left() as f64 / count;
                    if sink(Ok(Record::order(json)), Some(done)).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Self::Erase(uids) => {
                let count = uids.len() as f64;
                for (index, uid) in uids.iter().enumerate() {
                    let done = (index + 1) as f64 / count;
                    if sink(Ok(Record::erasure(uid)), Some(done)).is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }
}

fn read_file(
    input: Input,
    mut sink: impl FnMut(Found, Option<f64>) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let mut file = OrderFile::new(input.reader)?;
    while let Some(found) = file.next()? {
        let done = input
            .size
            .map(|size| file.bytes_read() as f64 / size.max(1) as f64);
        if sink(found.map(Record::order), done).is_break() {
            break;
        }
    }
    Ok(())
}

/// Records that no worker can decode, to mix with the orders.
pub(crate) struct BadRecords {
    invalid_json: u64,
    gibberish: u64,
    generator: Generator,
    rng: StdRng,
    orders: u64,
}

impl BadRecords {
    /// Prepares this number of records of each kind.
    pub(crate) fn new(invalid_json: u64, gibberish: u64) -> Self {
        // No order results from these bytes, so a constant seed is enough.
        Self {
            invalid_json,
            gibberish,
            generator: Generator::new(0, 1..=1),
            rng: StdRng::seed_from_u64(0),
            orders: 0,
        }
    }

    /// Counts an order and returns the bad record that is due after it, if any.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_the_uid_if_there_is_one() {
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
    fn every_bad_record_is_sent_between_or_after_the_orders() {
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
