//! Compares the dead letter topic with a ledger, record by record.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::order::Reason;

use super::{Check, SHOWN, Scope};
use crate::{
    kafka::{Header, Stored},
    ledger::{Ledger, Sent},
    record::RawHeader,
};

/// The headers that the worker adds to a dead letter.
const DEAD_LETTER_HEADERS: [&str; 7] = [
    "dlq-reason",
    "dlq-detail",
    "dlq-topic",
    "dlq-partition",
    "dlq-offset",
    "dlq-timestamp",
    "dlq-worker",
];

/// Topic, partition and offset that a record had before it became a dead letter.
type Origin = (String, i32, i64);

impl Check<'_> {
    /// Asserts that the dead letter topic holds each rejected record exactly once, unchanged and
    /// with its reason, and nothing else.
    #[track_caller]
    pub fn dead_letters(&self, ledger: &Ledger) {
        let letters = self.letters(ledger);
        for (source, letters) in letters {
            assert_eq!(letters, 1, "dead letters of {source:?}");
        }
    }

    /// Like [`Check::dead_letters`], but accepts duplicates, which a crash can cause.
    #[track_caller]
    pub fn dead_letters_at_least_once(&self, ledger: &Ledger) {
        self.letters(ledger);
    }

    fn source_of(&self, sent: &Sent) -> Origin {
        let position = sent.position;
        (
            self.addresses.topic.clone(),
            position.partition,
            position.offset,
        )
    }

    /// Returns the source of each record of a ledger.
    fn sources(&self, ledger: &Ledger) -> BTreeSet<Origin> {
        let sent = ledger.records().iter();
        sent.map(|sent| self.source_of(sent)).collect()
    }

    /// Compares each dead letter with its rejected record. Returns the number of dead letters of
    /// each rejected record.
    #[track_caller]
    fn letters(&self, ledger: &Ledger) -> BTreeMap<Origin, usize> {
        let expected: BTreeMap<Origin, _> = ledger
            .rejected()
            .map(|(sent, reason)| (self.source_of(sent), (sent, reason)))
            .collect();
        let topic = &self.addresses.dead_letter_topic;
        let (letters, ours) = match self.scope {
            Scope::System => (self.broker.read(topic), None),
            Scope::Ledger(since) => (
                self.broker.read_since(topic, since),
                Some(self.sources(ledger)),
            ),
        };
        let mut counts = BTreeMap::new();
        for letter in letters {
            let source = source(&letter);
            if ours.as_ref().is_some_and(|ours| !ours.contains(&source)) {
                continue;
            }
            let Some((sent, reason)) = expected.get(&source) else {
                panic!(
                    "unexpected dead letter of {source:?}: {:?}",
                    header(&letter, "dlq-reason")
                );
            };
            assert_letter(&letter, sent, *reason);
            *counts.entry(source).or_insert(0) += 1;
        }
        let missing: Vec<_> = expected
            .iter()
            .filter(|(source, _)| !counts.contains_key(*source))
            .map(|(source, (_, reason))| (source, reason))
            .collect();
        assert!(
            missing.is_empty(),
            "{} records are not in the dead letter topic: {:?}",
            missing.len(),
            &missing[..missing.len().min(SHOWN)]
        );
        counts
    }
}

/// Asserts that a dead letter has the key, value and headers of its record, and the headers that
/// the worker adds.
#[track_caller]
fn assert_letter(letter: &Stored, sent: &Sent, reason: Reason) {
    let source = source(letter);
    assert_eq!(letter.key, sent.record.key, "key of {source:?}");
    assert!(letter.value == sent.record.value, "value of {source:?}");
    let (original, ours) = letter
        .headers
        .split_at(sent.record.headers.len().min(letter.headers.len()));
    let expected: Vec<Header> = sent.record.headers.iter().map(readable).collect();
    assert_eq!(original, expected, "headers of {source:?}");
    let names: BTreeSet<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(DEAD_LETTER_HEADERS), "{source:?}");
    assert_eq!(ours.len(), DEAD_LETTER_HEADERS.len(), "{source:?}");
    assert_eq!(
        header(letter, "dlq-reason"),
        reason.as_str(),
        "{source:?}: {}",
        header(letter, "dlq-detail")
    );
    assert_eq!(
        header(letter, "dlq-timestamp"),
        sent.position.timestamp_ms.to_string()
    );
    assert!(!header(letter, "dlq-worker").is_empty());
    let detail = header(letter, "dlq-detail");
    assert!(!detail.is_empty());
    if let Some(text) = personal_text(sent.record.value.as_deref())
        .into_iter()
        .find(|text| detail.contains(text.as_str()))
    {
        panic!("dlq-detail of {source:?} quotes {text:?}: {detail}");
    }
}

/// Returns a header as the worker copies it: bytes of the name that are not UTF-8 become U+FFFD.
fn readable((name, value): &RawHeader) -> Header {
    (String::from_utf8_lossy(name).into_owned(), value.clone())
}

/// Returns the last header of that name as text.
#[track_caller]
fn header<'l>(letter: &'l Stored, name: &str) -> &'l str {
    let (_, value) = letter
        .headers
        .iter()
        .rev()
        .find(|(held, _)| held == name)
        .unwrap_or_else(|| panic!("a dead letter without {name}"));
    std::str::from_utf8(value.as_deref().unwrap_or_default()).unwrap()
}

#[track_caller]
fn source(letter: &Stored) -> Origin {
    (
        header(letter, "dlq-topic").to_owned(),
        header(letter, "dlq-partition").parse().unwrap(),
        header(letter, "dlq-offset").parse().unwrap(),
    )
}

/// Returns the personal data in a value, or nothing if the value is not JSON.
fn personal_text(value: Option<&[u8]>) -> Vec<String> {
    let Ok(order) = serde_json::from_slice::<Value>(value.unwrap_or_default()) else {
        return Vec::new();
    };
    ["name", "phone", "zip", "city", "address", "email"]
        .into_iter()
        .filter_map(|field| order["delivery"][field].as_str())
        // A shorter text may be part of a word.
        .filter(|text| text.chars().count() > 4)
        .map(str::to_owned)
        .collect()
}
