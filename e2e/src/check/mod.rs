//! Compares every tier with what was sent, record by record: nothing may be missing, nothing may be
//! left over.

mod letters;

use std::{collections::BTreeMap, fmt::Debug, iter};

use chrono::DateTime;
use serde_json::{Value, json};
use shared::order::REPRESENTATION;

use crate::{
    addresses::Addresses,
    http::{Answer, Http},
    kafka::Broker,
    ledger::{Ledger, OrderState},
    postgres::Database,
    redis::{Entry, entries, entries_of},
    until,
};

/// Reads in a row that show whether the local cache keeps an order. They take far less time than a
/// local entry lives.
const READS: usize = 10;

/// Differences that a failed comparison prints.
const SHOWN: usize = 5;

/// The part of a system that a check covers.
enum Scope<'a> {
    /// The whole system: it must not hold anything that the ledger does not name.
    System,
    /// Only the records of the ledger, and the dead letters from these offsets on.
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
    /// A check of the whole system at these addresses. It must hold what the ledger says, and
    /// nothing else.
    pub fn new(addresses: &'a Addresses, broker: &'a Broker) -> Self {
        Self {
            addresses,
            broker,
            database: Database::new(&addresses.database_url),
            scope: Scope::System,
        }
    }

    /// A check of a system with other users. It covers only the uids and records of the ledger.
    /// `letters_since` holds the end offsets of the dead letter topic before the first record of
    /// the ledger was sent.
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

    /// Asserts that Postgres holds each order in its greatest version, complete, in four tables,
    /// and nothing else. No rejected record may be stored.
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
                "{uid} is erased but its row is not blank: {}",
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

    /// Asserts that Redis holds each order in its greatest version, byte for byte, with a TTL of
    /// about an hour, and only the version of an erased order. Redis must hold nothing else, and no
    /// rejected record.
    #[track_caller]
    pub fn redis(&self, ledger: &Ledger) {
        let url = &self.addresses.redis_url;
        let found = match self.scope {
            Scope::System => entries(url),
            Scope::Ledger(_) => entries_of(url, ledger.uids()),
        };
        assert_entries(&ledger.orders(), found.unwrap());
    }

    /// Like [`Check::redis`], but accepts missing entries, which evictions or a restart can cause.
    #[track_caller]
    pub fn redis_remains(&self, ledger: &Ledger) {
        let found = entries(&self.addresses.redis_url).unwrap();
        let mut orders = ledger.orders();
        orders.retain(|uid, _| found.contains_key(uid));
        assert_entries(&orders, found);
    }

    /// Asserts that the replica at `url` returns each order with the expected bytes and its version
    /// as `ETag`, and 410 for an erased order. Any tier may answer the first read. Within a few
    /// more reads the tier must be `second`: `local`, or `redis` if the local cache is off.
    #[track_caller]
    pub fn api(&self, ledger: &Ledger, url: &str, second: &str) {
        let http = Http::new();
        for (uid, state) in ledger.orders() {
            let url = format!("{url}/order/{uid}");
            assert_answer(&http.get(&url), &state, &url);
            // An announcement during a read, or a link that was lost for a moment, keeps the answer
            // out of the local cache. A later read fills it.
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

    /// Like [`Check::api`], but reads each order from Postgres.
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

    /// Checks Postgres, Redis and the dead letter topic.
    #[track_caller]
    pub fn tiers(&self, ledger: &Ledger) {
        self.postgres(ledger);
        self.redis(ledger);
        self.dead_letters(ledger);
    }
}

/// Asserts that `found` holds exactly the entries of these orders.
#[track_caller]
fn assert_entries(orders: &BTreeMap<String, OrderState>, found: BTreeMap<String, Entry>) {
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
        // TTL of an hour plus jitter of at most a tenth. The entry may be up to a quarter of an
        // hour old.
        assert!(
            (HOUR_MS * 3 / 4..=HOUR_MS * 11 / 10).contains(&entry.ttl_ms),
            "{uid} lives for {} ms",
            entry.ttl_ms
        );
    }
    let found = found
        .into_iter()
        .map(|(uid, mut entry)| {
            entry.fields.retain(|field, value| !is_mac(field, value));
            (uid, entry.fields)
        })
        .collect();
    assert_equal("Redis", &expected, &found);
}

/// Returns whether the field is the MAC that entries have with `CACHE_MAC_KEY`.
fn is_mac(field: &str, value: &[u8]) -> bool {
    field == "mac" && value.len() == 64 && value.iter().all(u8::is_ascii_hexdigit)
}

/// Asserts that a replica's answer matches the state of an order.
#[track_caller]
fn assert_answer(answer: &Answer, state: &OrderState, url: &str) {
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

/// The text of the version of a document in Redis. Written out here instead of taken from `shared`,
/// because operators who inspect Redis rely on this format.
fn version_text(state: &OrderState) -> String {
    let version = state.version;
    let text = format!(
        "{:019}-{:019}-{:010}",
        version.timestamp_ms, version.offset, version.partition
    );
    match REPRESENTATION {
        ..=1 => text,
        shape => format!("{text}-{shape}"),
    }
}

/// Returns a document in the shape in which rows are read: the time in microseconds since 1970.
fn document(json: &[u8]) -> Value {
    let mut document: Value = serde_json::from_slice(json).unwrap();
    let time = DateTime::parse_from_rfc3339(document["date_created"].as_str().unwrap()).unwrap();
    document["date_created"] = json!(time.timestamp_micros());
    document
}

/// The values of an erased order in the columns of `orders`.
fn blank_columns() -> Value {
    json!({
        "track_number": "", "entry": "", "locale": "", "internal_signature": "", "customer_id": "",
        "delivery_service": "", "shardkey": "", "sm_id": 0, "date_created": 0, "oof_shard": "",
    })
}

/// Fails with the entries that differ instead of two complete maps.
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
            None => Some(format!("{uid} is unexpected: {found:?}")),
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
