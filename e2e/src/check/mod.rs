//! Whether everything that was sent is where it must be, and nothing else is: record by record, tier by tier.

mod letters;

use std::{collections::BTreeMap, fmt::Debug, iter};

use chrono::DateTime;
use serde_json::{Value, json};

use crate::{
    addresses::Addresses,
    http::{Answer, Http},
    kafka::Broker,
    ledger::{Ledger, State},
    postgres::Database,
    redis::{Entry, entries, entries_of},
    until,
};

/// So many reads in a row, far fewer than a local entry lives, show whether an order is kept.
const READS: usize = 10;

/// A failed comparison shows so many differences.
const SHOWN: usize = 5;

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

    /// Waits until Postgres holds each order in its greatest version.
    #[track_caller]
    pub fn await_versions(&self, ledger: &Ledger) {
        let orders = ledger.orders();
        let mut expected: Vec<_> = orders
            .iter()
            .map(|(uid, state)| (uid, state.version))
            .collect();
        expected.sort();
        until("every order in its greatest version", || {
            let rows = self.database.orders();
            let mut found: Vec<_> = rows.iter().map(|(uid, row)| (uid, row.version)).collect();
            found.sort();
            match found == expected {
                true => Ok(()),
                false => Err(format!(
                    "{} of {} orders, or older versions",
                    found.len(),
                    expected.len()
                )),
            }
        });
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
