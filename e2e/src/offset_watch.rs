//! Continuous checks of the committed offsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use shared::order::Version;

use crate::{
    addresses::Addresses,
    kafka::{Broker, CommittedOffsets, Position, Stored, Tail},
    postgres::{Database, Session},
    stack::Stack,
    wait::until,
};

/// Interval between two checks.
const PERIOD: Duration = Duration::from_millis(100);

/// Checks the committed offsets of the group ten times a second. A committed offset must never go
/// back. It must never pass a record that is in neither Postgres nor the dead letter topic. If a
/// record has a key, the key must be the uid of its order.
pub struct OffsetWatch {
    stop: Arc<AtomicBool>,
    complaint: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<usize>>,
}

impl OffsetWatch {
    /// Starts the checks.
    pub fn start(addresses: &Addresses) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let complaint: Arc<Mutex<Option<String>>> = Arc::default();
        let thread = thread::spawn({
            let (stop, complaint) = (Arc::clone(&stop), Arc::clone(&complaint));
            let mut look = Look::new(addresses);
            move || {
                let mut looks = 0;
                while !stop.load(Ordering::Relaxed) {
                    if let Err(seen) = look.again() {
                        *complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
                        break;
                    }
                    looks += 1;
                    thread::sleep(PERIOD);
                }
                looks
            }
        });
        Self {
            stop,
            complaint,
            thread: Some(thread),
        }
    }

    /// Asserts that no check has failed.
    ///
    /// # Panics
    /// A check has failed.
    #[track_caller]
    pub fn assert_no_failure(&self) {
        let complaint = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(complaint) = &*complaint {
            panic!("{complaint}");
        }
    }

    /// Like [`Stack::settle`], but fails as soon as a check fails.
    #[track_caller]
    pub fn settle(&self, stack: &Stack) {
        until("all records finished", || {
            self.assert_no_failure();
            match stack.progress() {
                (finished, all) if finished == all => Ok(()),
                (finished, all) => Err(format!("{finished} of {all} records finished")),
            }
        });
        stack.settle();
    }

    /// Stops the checks. Returns how often they ran.
    ///
    /// # Panics
    /// A check has failed.
    #[track_caller]
    pub fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        let looks = thread.join().expect("the offsets are readable");
        self.assert_no_failure();
        looks
    }
}

impl Drop for OffsetWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The state of one check.
struct Look {
    database: Session,
    offsets: CommittedOffsets,
    records: Tail,
    letters: Tail,
    committed: BTreeMap<i32, i64>,
    /// Records that were read and that the committed offset has not passed yet.
    ahead: Vec<Stored>,
    /// Partition and offset of every record that has a dead letter.
    dead: BTreeSet<(i32, i64)>,
}

impl Look {
    fn new(addresses: &Addresses) -> Self {
        let broker = Broker::new(&addresses.brokers);
        let from_the_start = BTreeMap::new();
        let partitions = broker.watermarks(&addresses.topic).into_keys();
        Self {
            database: Database::new(&addresses.database_url).session(),
            records: broker.tail(&addresses.topic, &from_the_start),
            letters: broker.tail(&addresses.dead_letter_topic, &from_the_start),
            offsets: broker.committed_offsets(&addresses.group_id, &addresses.topic, partitions),
            committed: BTreeMap::new(),
            ahead: Vec::new(),
            dead: BTreeSet::new(),
        }
    }

    fn again(&mut self) -> Result<(), String> {
        let committed = self.offsets.read();
        for (partition, before) in &self.committed {
            let now = committed.get(partition).copied().unwrap_or_default();
            if now < *before {
                return Err(format!(
                    "the committed offset of partition {partition} moved back from {before} to \
                     {now}"
                ));
            }
        }
        self.ahead.extend(self.records.read_to(&committed));
        let is_passed = |record: &Stored| {
            let end = committed.get(&record.position.partition);
            end.is_some_and(|end| record.position.offset < *end)
        };
        let (passed, ahead) = std::mem::take(&mut self.ahead)
            .into_iter()
            .partition(is_passed);
        self.ahead = ahead;
        self.committed = committed;
        self.assert_finished(passed)
    }

    fn assert_finished(&mut self, mut passed: Vec<Stored>) -> Result<(), String> {
        let uids: Vec<&str> = passed.iter().filter_map(uid).collect();
        let versions = self.database.versions(&uids);
        let is_stored = |record: &Stored| {
            let held = uid(record).and_then(|uid| versions.get(uid));
            held.is_some_and(|held| *held >= version(record.position))
        };
        passed.retain(|record| !is_stored(record));
        if !passed.is_empty() {
            let letters = self.letters.read_to_end();
            self.dead.extend(letters.iter().filter_map(source));
        }
        let place = |record: &Stored| (record.position.partition, record.position.offset);
        match passed
            .iter()
            .map(place)
            .find(|place| !self.dead.contains(place))
        {
            None => Ok(()),
            Some((partition, offset)) => Err(format!(
                "the committed offset of partition {partition} passed record {offset}, which is \
                 in neither Postgres nor the dead letter topic"
            )),
        }
    }
}

fn uid(record: &Stored) -> Option<&str> {
    std::str::from_utf8(record.key.as_deref()?).ok()
}

fn version(position: Position) -> Version {
    Version::new(position.timestamp_ms, position.offset, position.partition)
}

/// Returns the partition and offset of the record that a dead letter comes from.
fn source(letter: &Stored) -> Option<(i32, i64)> {
    let header = |name: &str| {
        let (_, value) = letter.headers.iter().rev().find(|(held, _)| held == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    };
    let partition = header("dlq-partition")?.parse().ok()?;
    Some((partition, header("dlq-offset")?.parse().ok()?))
}
