//! What was sent and acknowledged, hence what must be there in the end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::order::{OrderUid, Reason, Version, parse_replay_version};

use crate::{
    journal::Journal,
    kafka::{Broker, Position},
    record::{Draft, Record},
};

/// What is to become of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is an order.
    Order {
        /// Which one.
        uid: String,
        /// The bytes that every tier answers.
        json: Vec<u8>,
    },
    /// It erases an order.
    Erasure {
        /// Which one.
        uid: String,
    },
    /// It goes to the dead letter topic.
    Refused(Reason),
}

/// A record that the broker has acknowledged.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The record.
    pub record: Record,
    /// What is to become of it.
    pub class: Class,
    /// Where it stands.
    pub position: Position,
}

impl Sent {
    /// The version that it gives to its order: where it stands, or where its header says that it stood.
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

/// What must be known of an order in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its greatest version.
    pub version: Version,
    /// Its document; none when that version erased it.
    pub json: Option<Vec<u8>>,
}

/// Everything that was sent.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: Vec<Sent>,
    /// The same on disk, from the first record on.
    journals: Vec<Journal>,
}

/// What the copy sends goes into a journal of its own.
impl Clone for Ledger {
    fn clone(&self) -> Self {
        Self {
            sent: self.sent.clone(),
            journals: Vec::new(),
        }
    }
}

impl Ledger {
    /// Sends `drafts` to `topic`, waits until each is acknowledged, and takes them down.
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
            class: draft.class.clone(),
            position,
        });
        self.sent.extend(sent);
    }

    /// Adds what another ledger holds.
    pub fn append(&mut self, mut other: Self) {
        self.sent.append(&mut other.sent);
        self.journals.append(&mut other.journals);
    }

    /// Every record.
    pub fn records(&self) -> &[Sent] {
        &self.sent
    }

    /// For each order that was ever sent, the greatest version and what it says.
    pub fn orders(&self) -> BTreeMap<String, State> {
        let mut orders: BTreeMap<String, State> = BTreeMap::new();
        for sent in &self.sent {
            let (uid, json) = match &sent.class {
                Class::Order { uid, json } => (uid, Some(json.clone())),
                Class::Erasure { uid } => (uid, None),
                Class::Refused(_) => continue,
            };
            let state = State {
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

    /// What it says of so many of its orders, the newest included; of all where it has fewer.
    pub fn of_some(&self, orders: usize) -> Self {
        let uid = |sent: &Sent| match &sent.class {
            Class::Order { uid, .. } | Class::Erasure { uid } => Some(uid.clone()),
            Class::Refused(_) => None,
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

    /// The records that go to the dead letter topic.
    pub fn refused(&self) -> impl Iterator<Item = (&Sent, Reason)> {
        self.sent.iter().filter_map(|sent| match sent.class {
            Class::Refused(reason) => Some((sent, reason)),
            Class::Order { .. } | Class::Erasure { .. } => None,
        })
    }

    /// The uids of all that was sent, also of what is refused, where they can be read.
    pub fn uids(&self) -> BTreeSet<String> {
        let refused = self.refused().filter_map(|(sent, _)| {
            let value: Value = serde_json::from_slice(sent.record.value.as_deref()?).ok()?;
            let uid = OrderUid::parse(value["order_uid"].as_str()?).ok()?;
            Some(uid.as_str().to_owned())
        });
        self.orders().into_keys().chain(refused).collect()
    }

    /// A uid whose newest version is an order.
    ///
    /// # Panics
    /// When there is none.
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

    fn sent(timestamp_ms: i64, offset: i64, class: Class) -> Sent {
        Sent {
            record: Record::default(),
            class,
            position: Position {
                partition: 0,
                offset,
                timestamp_ms,
            },
        }
    }

    #[test]
    fn the_greatest_version_wins_whatever_the_order() {
        let order = |json: &[u8]| Class::Order {
            uid: "u".to_owned(),
            json: json.to_vec(),
        };
        let erasure = Class::Erasure {
            uid: "u".to_owned(),
        };
        let mut ledger = Ledger {
            journals: Vec::new(),
            sent: vec![
                sent(2, 0, order(b"new")),
                sent(1, 9, erasure.clone()),
                sent(1, 8, order(b"old")),
                sent(9, 9, Class::Refused(Reason::TooLarge)),
            ],
        };
        assert_eq!(ledger.orders()["u"].json.as_deref(), Some(&b"new"[..]));
        assert_eq!(ledger.refused().count(), 1);
        ledger.sent.push(sent(2, 1, erasure));
        let state = &ledger.orders()["u"];
        assert_eq!((state.version, &state.json), (Version::new(2, 1, 0), &None));
    }

    #[test]
    fn a_replayed_record_has_the_version_of_its_header() {
        let mut replayed = sent(9, 9, Class::Refused(Reason::TooLarge));
        let header = (b"replay-version".to_vec(), Some(b"1/2/3".to_vec()));
        replayed.record.headers.push(header);
        assert_eq!(replayed.version(), Version::new(1, 2, 3));
    }
}
