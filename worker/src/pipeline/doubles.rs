//! Scripted Postgres, Redis and dead letter topic, for unit tests of the policy.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shared::{
    cache::{CacheError, WriteOutcome},
    order::{
        DocumentVersion, Order, OrderUid, Reason, Rejection, Revision, Version, sample::Generator,
    },
    storage::{Applied, CacheWrite, Change, ChangeSet, StorageError},
};
use tokio::sync::Semaphore;

use super::services::{DeadLetterSink, OrderCache, OrderStore, RepairLog};
use crate::kafka::{Assignment, Received, Record, Timestamp};

/// A row that was read or committed longer ago than this creates no entry in the scripted Redis.
const FRESH: Duration = Duration::from_secs(3600);

/// Returns an order that differs from others only by its uid.
pub(super) fn order(uid: &str) -> Order {
    let mut order = Generator::new(1, 1..=1).next().unwrap();
    order.order_uid = uid.into();
    order
}

pub(super) fn uid(text: &str) -> OrderUid {
    OrderUid::parse(text).unwrap()
}

/// Returns the version of the record at `offset` of partition 0.
pub(super) fn version(offset: i64) -> Version {
    Version::new(offset, offset, 0)
}

/// Returns the change that the record at `offset` of partition 0 makes.
pub(super) fn change(uid: &str, offset: i64) -> Change {
    Change {
        uid: self::uid(uid),
        version: version(offset),
        order: Some(Box::new(order(uid))),
    }
}

/// Receives a record at `offset` of partition 0, which must be assigned.
pub(super) fn received(assignment: &Assignment, offset: i64, value: Vec<u8>) -> Received {
    let epoch = assignment.epoch(0).unwrap();
    Received {
        record: Record {
            topic: "orders".into(),
            partition: 0,
            offset,
            timestamp: Timestamp::LogAppend(offset),
            key: None,
            value: Some(value),
            headers: Vec::new(),
        },
        ticket: assignment.receive(0, epoch, offset).unwrap(),
        memory: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
    }
}

/// Returns an assignment of partition 0.
pub(super) fn assignment() -> Arc<Assignment> {
    Arc::new(Assignment::detached(0))
}

/// Returns how many received records of partition 0 are not finished.
pub(super) fn unfinished(assignment: &Assignment) -> usize {
    assignment.outstanding(0)
}

fn sqlstate(code: &str, in_row: bool) -> StorageError {
    StorageError::Database {
        code: code.to_owned(),
        constraint: None,
        in_row,
        object: None,
    }
}

/// A Postgres in memory. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Store(Arc<Mutex<StoreState>>);

#[derive(Default)]
struct StoreState {
    rows: HashMap<OrderUid, Version>,
    /// The SQLSTATE with which a change fails, and whether a trigger raises it.
    bad: HashMap<(OrderUid, Version), (&'static str, bool)>,
    /// The SQLSTATE with which every call fails.
    down: Option<&'static str>,
    /// How many calls fail until `down` ends. None: it lasts.
    down_for: Option<usize>,
    commit_age: Duration,
    applied: Vec<(tokio::time::Instant, String)>,
    reads: Vec<String>,
    marks: Vec<String>,
    sessions_ended: usize,
}

impl StoreState {
    fn check(&mut self) -> Result<(), StorageError> {
        let Some(code) = self.down else { return Ok(()) };
        if let Some(left) = &mut self.down_for {
            *left -= 1;
            if *left == 0 {
                (self.down, self.down_for) = (None, None);
            }
        }
        Err(sqlstate(code, false))
    }
}

/// Lists uids in the order of a call, such as `a b c`.
fn listed<'u>(uids: impl Iterator<Item = &'u OrderUid>) -> String {
    uids.map(OrderUid::as_str).collect::<Vec<_>>().join(" ")
}

impl Store {
    /// Fails every set that holds this change.
    pub(super) fn reject(&self, change: &Change, code: &'static str) {
        let key = (change.uid, change.version);
        self.0.lock().bad.insert(key, (code, false));
    }

    /// Fails every set that holds this change, as a trigger does that raises `code` for it.
    pub(super) fn reject_in_row(&self, change: &Change, code: &'static str) {
        let key = (change.uid, change.version);
        self.0.lock().bad.insert(key, (code, true));
    }

    /// Accepts every change from now on.
    pub(super) fn accept_all(&self) {
        self.0.lock().bad.clear();
    }

    /// Fails every call until [`Store::answer`].
    pub(super) fn go_down(&self, code: &'static str) {
        let mut state = self.0.lock();
        (state.down, state.down_for) = (Some(code), None);
    }

    /// Fails the next `calls`.
    pub(super) fn fail_next(&self, calls: usize, code: &'static str) {
        let mut state = self.0.lock();
        (state.down, state.down_for) = (Some(code), Some(calls));
    }

    /// Ends [`Store::go_down`].
    pub(super) fn answer(&self) {
        self.0.lock().down = None;
    }

    /// Stores a row.
    pub(super) fn hold(&self, uid: &str, offset: i64) {
        self.0.lock().rows.insert(self::uid(uid), version(offset));
    }

    /// Reports commits that Redis considers too long ago to create an entry.
    pub(super) fn commit_late(&self) {
        self.0.lock().commit_age = FRESH * 2;
    }

    /// Returns the offset of the version that the row of `uid` has.
    pub(super) fn held(&self, uid: &str) -> Option<i64> {
        let state = self.0.lock();
        state.rows.get(&self::uid(uid)).map(|held| held.offset)
    }

    /// Returns the sets that were tried, such as `a b`.
    pub(super) fn applied(&self) -> Vec<String> {
        let state = self.0.lock();
        state.applied.iter().map(|(_, set)| set.clone()).collect()
    }

    /// Returns when the sets were tried.
    pub(super) fn times(&self) -> Vec<tokio::time::Instant> {
        let state = self.0.lock();
        state.applied.iter().map(|(at, _)| *at).collect()
    }

    /// Returns the orders of each read.
    pub(super) fn reads(&self) -> Vec<String> {
        self.0.lock().reads.clone()
    }

    /// Returns the orders of each successful mark.
    pub(super) fn marks(&self) -> Vec<String> {
        self.0.lock().marks.clone()
    }

    /// Returns how often frozen sessions were ended.
    pub(super) fn sessions_ended(&self) -> usize {
        self.0.lock().sessions_ended
    }
}

impl OrderStore for Store {
    async fn apply(&self, changes: &ChangeSet) -> Result<Applied, StorageError> {
        let mut state = self.0.lock();
        let changes = changes.as_slice();
        let set = listed(changes.iter().map(|change| &change.uid));
        state.applied.push((tokio::time::Instant::now(), set));
        state.check()?;
        for change in changes {
            if let Some((code, in_row)) = state.bad.get(&(change.uid, change.version)) {
                return Err(sqlstate(code, *in_row));
            }
        }
        let mut won = Vec::new();
        for change in changes {
            let is_newer = state
                .rows
                .get(&change.uid)
                .is_none_or(|held| *held < change.version);
            if is_newer {
                state.rows.insert(change.uid, change.version);
            }
            won.push(is_newer);
        }
        Ok(Applied {
            won,
            as_of: Instant::now().checked_sub(state.commit_age).unwrap(),
            cache_write: None,
        })
    }

    async fn read_many(&self, uids: &[OrderUid]) -> Result<Vec<Revision>, StorageError> {
        let mut state = self.0.lock();
        state.reads.push(listed(uids.iter()));
        state.check()?;
        let revision = |uid: &OrderUid| {
            Some(Revision {
                uid: *uid,
                version: *state.rows.get(uid)?,
                document: Some(order(uid.as_str()).to_json().into()),
            })
        };
        Ok(uids.iter().filter_map(revision).collect())
    }

    async fn end_frozen_sessions(&self) -> Result<i64, StorageError> {
        self.0.lock().sessions_ended += 1;
        Ok(1)
    }
}

impl RepairLog for Store {
    async fn mark_for_repair(&self, uids: &[OrderUid]) -> Result<(), StorageError> {
        let mut state = self.0.lock();
        state.check()?;
        state.marks.push(listed(uids.iter()));
        Ok(())
    }

    async fn finish_cache_writes(&self, _: &[CacheWrite]) -> Result<(), StorageError> {
        self.0.lock().check()
    }
}

/// A Redis in memory. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Redis(Arc<Mutex<RedisState>>);

#[derive(Default)]
struct RedisState {
    entries: HashMap<OrderUid, Version>,
    is_down: bool,
    /// Considers every row too old, however soon it arrives.
    is_always_late: bool,
    /// A replaced entry is back at once.
    is_forged_again: bool,
}

impl Redis {
    /// Fails every write from now on.
    pub(super) fn go_down(&self) {
        self.0.lock().is_down = true;
    }

    /// Considers every row read too long ago from now on.
    pub(super) fn be_late(&self) {
        self.0.lock().is_always_late = true;
    }

    /// Sets the entry of `uid` to a version that no worker wrote.
    pub(super) fn forge(&self, uid: &str, offset: i64) {
        let entry = (self::uid(uid), version(offset));
        self.0.lock().entries.extend([entry]);
    }

    /// Restores each replaced entry at once from now on.
    pub(super) fn forge_again(&self) {
        self.0.lock().is_forged_again = true;
    }

    /// Returns the offset of the version that the entry of `uid` has.
    pub(super) fn held(&self, uid: &str) -> Option<i64> {
        let state = self.0.lock();
        state.entries.get(&self::uid(uid)).map(|held| held.offset)
    }
}

impl OrderCache for Redis {
    async fn write_batch(
        &self,
        revisions: &[Revision],
        read_at: Instant,
    ) -> Vec<Result<WriteOutcome, CacheError>> {
        let mut state = self.0.lock();
        let is_late = state.is_always_late || read_at.elapsed() > FRESH;
        let mut write = |revision: &Revision| {
            if state.is_down {
                return Err(CacheError::Deadline(Duration::ZERO));
            }
            if is_late {
                return Ok(WriteOutcome::Late);
            }
            let held = state.entries.get(&revision.uid);
            if let Some(held) = held.filter(|held| **held > revision.version) {
                return Ok(WriteOutcome::KeptNewer(DocumentVersion::current(*held)));
            }
            state.entries.insert(revision.uid, revision.version);
            Ok(WriteOutcome::Written)
        };
        revisions.iter().map(&mut write).collect()
    }

    async fn replace(
        &self,
        revision: &Revision,
        ahead: DocumentVersion,
        read_at: Instant,
    ) -> Result<WriteOutcome, CacheError> {
        {
            let mut state = self.0.lock();
            let held = state.entries.get(&revision.uid).copied();
            if held.map(DocumentVersion::current) == Some(ahead) {
                state.entries.remove(&revision.uid);
            }
            if state.is_forged_again {
                state.entries.insert(revision.uid, ahead.version);
            }
        }
        let results = self.write_batch(std::slice::from_ref(revision), read_at);
        results.await.remove(0)
    }
}

/// A dead letter topic in memory. Clones share it.
#[derive(Clone, Default)]
pub(super) struct DeadLetters(Arc<Mutex<DeadLettersState>>);

#[derive(Default)]
struct DeadLettersState {
    is_down: bool,
    attempts: usize,
    sent: Vec<(i64, Reason, String)>,
}

impl DeadLetters {
    /// Sets whether the topic takes no record.
    pub(super) fn set_down(&self, is_down: bool) {
        self.0.lock().is_down = is_down;
    }

    /// Returns the number of sends, failed ones too.
    pub(super) fn attempts(&self) -> usize {
        self.0.lock().attempts
    }

    /// Returns offset, reason and detail of each dead letter.
    pub(super) fn sent(&self) -> Vec<(i64, Reason, String)> {
        self.0.lock().sent.clone()
    }
}

impl DeadLetterSink for DeadLetters {
    type Error = &'static str;

    async fn send(&self, record: &Record, rejection: &Rejection) -> Result<(), Self::Error> {
        let mut state = self.0.lock();
        state.attempts += 1;
        if state.is_down {
            return Err("down");
        }
        let letter = (record.offset, rejection.reason, rejection.detail.clone());
        state.sent.push(letter);
        Ok(())
    }
}
