//! The records that were sent and acknowledged, and the final state that follows from them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::order::{OrderUid, Reason, Version, parse_replay_version};

use crate::{
    journal::Journal,
    kafka::{Broker, Position},
    record::{Draft, Expected, Record},
};

/// A record that the broker has acknowledged.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The record.
    pub record: Record,
    /// Its expected outcome.
    pub expected: Expected,
    /// Its position.
    pub position: Position,
}

impl Sent {
    /// Returns the version of its order: the position of the record, or the version in its header.
    pub fn version(&self) -> Version {
        self.record
            .headers
            .iter()
            .rev()
            .find(|(name, _)| name == b"replay-version")
            .and_then(|(_, value)| parse_replay_version(value.as_deref()?).ok())
            .unwrap_or(Version::new(
                self.position.timestamp_ms,
                self.position.offset,
                self.position.partition,
            ))
    }
}

/// Expected final state of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderState {
    /// Its greatest version.
    pub version: Version,
    /// Its document, or `None` if that version erased the order.
    pub json: Option<Vec<u8>>,
}

/// All records that were sent.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: Vec<Sent>,
    /// The same records on disk, from the first one on.
    journals: Vec<Journal>,
}

/// The copy writes a journal of its own.
impl Clone for Ledger {
    fn clone(&self) -> Self {
        Self {
            sent: self.sent.clone(),
            journals: Vec::new(),
        }
    }
}

impl Ledger {
    /// Sends `drafts` to `topic`, waits for all acknowledgements and records them.
    #[track_caller]
    pub fn send(&mut self, broker: &Broker, topic: &str, drafts: &[Draft]) {
        if self.journals.is_empty() {
            self.journals.push(Journal::create());
        }
        let journal = &mut self.journals[0];
        journal.intend(drafts);
        let positions = broker.send(topic, drafts.iter().map(|draft| &draft.record));
        journal.acknowledge(&positions);
        let sent = drafts.iter().zip(positions).map(|(draft, position)| Sent {
            record: draft.record.clone(),
            expected: draft.expected.clone(),
            position,
        });
        self.sent.extend(sent);
    }

    /// Adds the records of another ledger.
    pub fn append(&mut self, mut other: Self) {
        self.sent.append(&mut other.sent);
        self.journals.append(&mut other.journals);
    }

    /// Returns all records.
    pub fn records(&self) -> &[Sent] {
        &self.sent
    }

    /// Returns the greatest version and the document of each order that was sent.
    pub fn orders(&self) -> BTreeMap<String, OrderState> {
        let mut orders: BTreeMap<String, OrderState> = BTreeMap::new();
        for sent in &self.sent {
            let (uid, json) = match &sent.expected {
                Expected::Order { uid, json } => (uid, Some(json.clone())),
                Expected::Erasure { uid } => (uid, None),
                Expected::Rejected(_) => continue,
            };
            let state = OrderState {
                version: sent.version(),
                json,
            };
            match orders.get_mut(uid) {
                Some(held) if held.version >= state.version => {}
                Some(held) => *held = state,
                None => drop(orders.insert(uid.clone(), state)),
            }
        }
        orders
    }

    /// Returns a ledger of that many orders, the newest included, or of all orders if there are
    /// fewer.
    pub fn of_some(&self, orders: usize) -> Self {
        let uid = |sent: &Sent| match &sent.expected {
            Expected::Order { uid, .. } | Expected::Erasure { uid } => Some(uid.clone()),
            Expected::Rejected(_) => None,
        };
        let mut some = BTreeSet::new();
        for uid in self.sent.iter().rev().filter_map(uid) {
            if some.len() == orders {
                break;
            }
            some.insert(uid);
        }
        let sent = self.sent.iter();
        let sent = sent.filter(|sent| uid(sent).is_some_and(|uid| some.contains(&uid)));
        Self {
            sent: sent.cloned().collect(),
            journals: Vec::new(),
        }
    }

    /// Returns the records that the worker rejects, with the reason of each.
    pub fn rejected(&self) -> impl Iterator<Item = (&Sent, Reason)> {
        self.sent.iter().filter_map(|sent| match sent.expected {
            Expected::Rejected(reason) => Some((sent, reason)),
            Expected::Order { .. } | Expected::Erasure { .. } => None,
        })
    }

    /// Returns the uids of all records, including the readable ones of rejected records.
    pub fn uids(&self) -> BTreeSet<String> {
        let rejected = self.rejected().filter_map(|(sent, _)| {
            let value: Value = serde_json::from_slice(sent.record.value.as_deref()?).ok()?;
            let uid = OrderUid::parse(value["order_uid"].as_str()?).ok()?;
            Some(uid.as_str().to_owned())
        });
        self.orders().into_keys().chain(rejected).collect()
    }

    /// Returns a uid whose newest version is an order.
    ///
    /// # Panics
    /// There is no such uid.
    pub fn some_uid(&self) -> String {
        let live = self
            .orders()
            .into_iter()
            .find(|(_, state)| state.json.is_some());
        live.expect("the ledger has an order").0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(timestamp_ms: i64, offset: i64, expected: Expected) -> Sent {
        Sent {
            record: Record::default(),
            expected,
            position: Position {
                partition: 0,
                offset,
                timestamp_ms,
            },
        }
    }

    #[test]
    fn the_greatest_version_wins_in_any_order_of_arrival() {
        let order = |json: &[u8]| Expected::Order {
            uid: "u".to_owned(),
            json: json.to_vec(),
        };
        let erasure = Expected::Erasure {
            uid: "u".to_owned(),
        };
        let mut ledger = Ledger {
            journals: Vec::new(),
            sent: vec![
                sent(2, 0, order(b"new")),
                sent(1, 9, erasure.clone()),
                sent(1, 8, order(b"old")),
                sent(9, 9, Expected::Rejected(Reason::TooLarge)),
            ],
        };
        assert_eq!(ledger.orders()["u"].json.as_deref(), Some(&b"new"[..]));
        assert_eq!(ledger.rejected().count(), 1);
        ledger.sent.push(sent(2, 1, erasure));
        let state = &ledger.orders()["u"];
        assert_eq!((state.version, &state.json), (Version::new(2, 1, 0), &None));
    }

    #[test]
    fn a_replayed_record_has_the_version_of_its_header() {
        let mut replayed = sent(9, 9, Expected::Rejected(Reason::TooLarge));
        let header = (b"replay-version".to_vec(), Some(b"1/2/3".to_vec()));
        replayed.record.headers.push(header);
        assert_eq!(replayed.version(), Version::new(1, 2, 3));
    }
}
