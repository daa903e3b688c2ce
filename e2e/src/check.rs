//! Whether everything that was sent is where it must be, and nothing else is: record by record, tier by tier.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    iter,
};

use chrono::DateTime;
use serde_json::{Value, json};

use crate::{
    addresses::Addresses,
    http::{Answer, Http},
    kafka::{Broker, Header, RawHeader, Stored},
    ledger::{Ledger, Sent, State},
    postgres::Database,
    redis::{Entry, entries, entries_of},
};

/// So many reads in a row, far fewer than a local entry lives, show whether an order is kept.
const READS: usize = 10;

/// A failed comparison shows so many differences.
const SHOWN: usize = 5;

/// What the worker adds to a dead letter.
const DEAD_LETTER_HEADERS: [&str; 7] = [
    "dlq-reason",
    "dlq-detail",
    "dlq-topic",
    "dlq-partition",
    "dlq-offset",
    "dlq-timestamp",
    "dlq-worker",
];

/// Where a record stood before it became a dead letter: topic, partition, offset.
type Source = (String, i32, i64);

/// How much of a system a ledger tells about.
enum Scope<'a> {
    /// All of it: what the ledger does not name must not be there.
    System,
    /// Its own records; of the dead letters those from these offsets on are looked at.
    Ledger(&'a BTreeMap<i32, i64>),
}

/// Compares the tiers of a system with a ledger.
pub struct Check<'a> {
    addresses: &'a Addresses,
    broker: &'a Broker,
    database: Database,
    scope: Scope<'a>,
}

impl<'a> Check<'a> {
    /// Of the system at these addresses, which holds what the ledger says, and nothing else.
    pub fn new(addresses: &'a Addresses, broker: &'a Broker) -> Self {
        Self {
            addresses,
            broker,
            database: Database::new(&addresses.database_url),
            scope: Scope::System,
        }
    }

    /// Of a system that others use, too: no more is looked at than the uids and the records of the ledger. It was begun when
    /// the dead letter topic ended at `letters_since`.
    pub fn of_ledger_only(
        addresses: &'a Addresses,
        broker: &'a Broker,
        letters_since: &'a BTreeMap<i32, i64>,
    ) -> Self {
        Self {
            scope: Scope::Ledger(letters_since),
            ..Self::new(addresses, broker)
        }
    }

    /// Postgres holds each order in its greatest version, whole, in four tables; and nothing else, nothing of what was
    /// refused in any case.
    #[track_caller]
    pub fn postgres(&self, ledger: &Ledger) {
        let expected: BTreeMap<String, _> = ledger
            .orders()
            .into_iter()
            .map(|(uid, state)| {
                let document = state.json.as_deref().map(document);
                let children = document
                    .as_ref()
                    .map_or(0, |order| 2 + order["items"].as_array().unwrap().len());
                let erased = state.json.is_none();
                (uid, (state.version, erased, children as i64, document))
            })
            .collect();
        let rows = match self.scope {
            Scope::System => self.database.orders(),
            Scope::Ledger(_) => self.database.orders_of(&ledger.uids()),
        };
        let blank = blank_columns();
        for (uid, row) in &rows {
            assert!(
                !row.erased || row.columns == blank,
                "erased, yet there is something left of {uid}: {}",
                row.columns
            );
            assert!(
                row.created_at <= row.updated_at,
                "{uid} was updated before it was created"
            );
        }
        let children: i64 = expected.values().map(|(_, _, children, _)| children).sum();
        let found = rows
            .into_iter()
            .map(|(uid, row)| (uid, (row.version, row.erased, row.children, row.document)))
            .collect();
        assert_equal("Postgres", &expected, &found);
        if let Scope::System = self.scope {
            assert_eq!(self.database.children(), children, "rows of children");
        }
    }

    /// Redis holds each order in its greatest version, byte for byte, for about an hour; of an erased one the version; and
    /// nothing else, nothing of what was refused in any case.
    #[track_caller]
    pub fn redis(&self, ledger: &Ledger) {
        let url = &self.addresses.redis_url;
        let found = match self.scope {
            Scope::System => entries(url),
            Scope::Ledger(_) => entries_of(url, ledger.uids()),
        };
        assert_entries(&ledger.orders(), found.unwrap());
    }

    /// As [`Check::redis`], when evictions or a restart may have taken entries away: those that are there are right.
    #[track_caller]
    pub fn redis_remains(&self, ledger: &Ledger) {
        let found = entries(&self.addresses.redis_url).unwrap();
        let mut orders = ledger.orders();
        orders.retain(|uid, _| found.contains_key(uid));
        assert_entries(&orders, found);
    }

    /// The dead letter topic holds each refused record, once, as it came, with the reason; and nothing else.
    #[track_caller]
    pub fn dead_letters(&self, ledger: &Ledger) {
        let letters = self.letters(ledger);
        for (source, letters) in letters {
            assert_eq!(letters, 1, "dead letters of {source:?}");
        }
    }

    /// As [`Check::dead_letters`], but after a crash a dead letter may stand there more than once.
    #[track_caller]
    pub fn dead_letters_at_least_once(&self, ledger: &Ledger) {
        self.letters(ledger);
    }

    fn source_of(&self, sent: &Sent) -> Source {
        let position = sent.position;
        (
            self.addresses.topic.clone(),
            position.partition,
            position.offset,
        )
    }

    /// Where everything of a ledger stands.
    fn sources(&self, ledger: &Ledger) -> BTreeSet<Source> {
        let sent = ledger.records().iter();
        sent.map(|sent| self.source_of(sent)).collect()
    }

    /// How many dead letters each refused record has, after each of them was compared with it.
    #[track_caller]
    fn letters(&self, ledger: &Ledger) -> BTreeMap<Source, usize> {
        let expected: BTreeMap<Source, _> = ledger
            .refused()
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
                    "{source:?} was not to be refused: {:?}",
                    header(&letter, "dlq-reason")
                );
            };
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
                header(&letter, "dlq-reason"),
                reason.as_str(),
                "{source:?}: {}",
                header(&letter, "dlq-detail")
            );
            assert_eq!(
                header(&letter, "dlq-timestamp"),
                sent.position.timestamp_ms.to_string()
            );
            assert!(!header(&letter, "dlq-worker").is_empty());
            let detail = header(&letter, "dlq-detail");
            assert!(!detail.is_empty());
            if let Some(text) = personal_text(sent.record.value.as_deref())
                .into_iter()
                .find(|text| detail.contains(text.as_str()))
            {
                panic!("dlq-detail of {source:?} quotes {text:?}: {detail}");
            }
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

    /// The replica at `url` answers each order with the bytes that every tier and every replica has and the version as
    /// `ETag`, from whichever tier it finds it in first and before long from `second`: `local`, or `redis` where the local cache
    /// is off. What was erased is 410.
    #[track_caller]
    pub fn api(&self, ledger: &Ledger, url: &str, second: &str) {
        let http = Http::new();
        for (uid, state) in ledger.orders() {
            let url = format!("{url}/order/{uid}");
            assert_answer(&http.get(&url), &state, &url);
            // An announcement that comes in the middle of a read, or a link that was lost for a moment, keeps its answer out
            // of the local cache; one of the next is kept.
            let sources: Vec<_> = iter::repeat_with(|| {
                let cached = http.get(&url);
                assert_answer(&cached, &state, &url);
                cached.header("X-Source").map(str::to_owned)
            })
            .take(READS)
            .take_while(|source| source.as_deref() != Some(second))
            .collect();
            assert!(
                sources.len() < READS,
                "{url} from {sources:?}, not from {second}"
            );
        }
    }

    /// As [`Check::api`], when each order is read from Postgres.
    #[track_caller]
    pub fn api_in_postgres(&self, ledger: &Ledger, url: &str) {
        let http = Http::new();
        for (uid, state) in ledger.orders() {
            let url = format!("{url}/order/{uid}?nocache=1");
            let answer = http.get(&url);
            assert_answer(&answer, &state, &url);
            assert_eq!(answer.header("X-Source"), Some("postgres"), "{url}");
        }
    }

    /// Postgres, Redis and the dead letter topic.
    #[track_caller]
    pub fn tiers(&self, ledger: &Ledger) {
        self.postgres(ledger);
        self.redis(ledger);
        self.dead_letters(ledger);
    }
}

/// That these are the entries of these orders.
#[track_caller]
fn assert_entries(orders: &BTreeMap<String, State>, found: BTreeMap<String, Entry>) {
    const HOUR_MS: i64 = 3_600_000;
    let expected: BTreeMap<String, _> = orders
        .iter()
        .map(|(uid, state)| {
            let mut fields =
                BTreeMap::from([("version".to_owned(), version_text(state).into_bytes())]);
            if let Some(json) = &state.json {
                fields.insert("json".to_owned(), json.clone());
            }
            (uid.clone(), fields)
        })
        .collect();
    for (uid, entry) in &found {
        // Written within the last quarter of an hour, for an hour and at most a tenth of it.
        assert!(
            (HOUR_MS * 3 / 4..=HOUR_MS * 11 / 10).contains(&entry.ttl_ms),
            "{uid} lives for {} ms",
            entry.ttl_ms
        );
    }
    let found = found
        .into_iter()
        .map(|(uid, entry)| (uid, entry.fields))
        .collect();
    assert_equal("Redis", &expected, &found);
}

/// That a replica answers an order as it is known.
#[track_caller]
fn assert_answer(answer: &Answer, state: &State, url: &str) {
    let Some(json) = &state.json else {
        answer.problem(410);
        return;
    };
    assert_eq!(answer.status, 200, "{url}: {}", answer.text());
    assert!(
        answer.body == *json,
        "{url}: {} instead of {}",
        answer.text(),
        String::from_utf8_lossy(json)
    );
    let etag = format!("\"{}\"", version_text(state));
    assert_eq!(answer.header("ETag"), Some(etag.as_str()), "{url}");
}

/// The fixed-width text of a version, spelt out here: whoever looks into Redis relies on it.
fn version_text(state: &State) -> String {
    let version = state.version;
    format!(
        "{:019}-{:019}-{:010}",
        version.timestamp_ms, version.offset, version.partition
    )
}

/// A document in the shape in which rows are read: the time in microseconds since 1970.
fn document(json: &[u8]) -> Value {
    let mut document: Value = serde_json::from_slice(json).unwrap();
    let time = DateTime::parse_from_rfc3339(document["date_created"].as_str().unwrap()).unwrap();
    document["date_created"] = json!(time.timestamp_micros());
    document
}

/// What an erased order has in the columns of `orders`.
fn blank_columns() -> Value {
    json!({
        "track_number": "", "entry": "", "locale": "", "internal_signature": "", "customer_id": "",
        "delivery_service": "", "shardkey": "", "sm_id": 0, "date_created": 0, "oof_shard": "",
    })
}

/// A header as the worker passes it on: with U+FFFD where the name is not UTF-8.
fn readable((name, value): &RawHeader) -> Header {
    (String::from_utf8_lossy(name).into_owned(), value.clone())
}

/// The last header of that name, as text.
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
fn source(letter: &Stored) -> Source {
    (
        header(letter, "dlq-topic").to_owned(),
        header(letter, "dlq-partition").parse().unwrap(),
        header(letter, "dlq-offset").parse().unwrap(),
    )
}

/// The texts of a value that tell something about a person, where it can be read at all.
fn personal_text(value: Option<&[u8]>) -> Vec<String> {
    let Ok(order) = serde_json::from_slice::<Value>(value.unwrap_or_default()) else {
        return Vec::new();
    };
    ["name", "phone", "zip", "city", "address", "email"]
        .into_iter()
        .filter_map(|field| order["delivery"][field].as_str())
        // Shorter ones may be a part of a word.
        .filter(|text| text.chars().count() > 4)
        .map(str::to_owned)
        .collect()
}

/// Shows what differs instead of two whole maps.
#[track_caller]
fn assert_equal<T: PartialEq + Debug>(
    tier: &str,
    expected: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
) {
    let missing = expected
        .keys()
        .filter(|uid| !found.contains_key(*uid))
        .map(|uid| format!("{uid} is missing"));
    let others = found
        .iter()
        .filter_map(|(uid, found)| match expected.get(uid) {
            None => Some(format!("{uid} does not belong there: {found:?}")),
            Some(expected) if expected != found => {
                Some(format!("{uid} is {found:?} instead of {expected:?}"))
            }
            Some(_) => None,
        });
    let differences: Vec<String> = missing.chain(others).collect();
    assert!(
        differences.is_empty(),
        "{tier} differs in {} of {} orders:\n{}",
        differences.len(),
        expected.len(),
        differences[..differences.len().min(SHOWN)].join("\n")
    );
}
