//! Writes batches to Postgres: retries transient errors, bisects a batch that holds a rejected row.

use std::{collections::HashMap, sync::Arc, time};

use bytes::Bytes;
use shared::{
    order::{OrderUid, Revision, Version},
    storage::{Applied, CacheWrite, Change, ChangeSet, Class, StorageError},
};
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    breaker::RejectionBreaker,
    parts::{Part, Parts, Remedy},
    retry::{Retry, read_persistently},
    services::OrderStore,
    step_size::StepSize,
    turn::Turn,
    waits::{BatchWaits, Wait, Waits},
    write_through::Fresh,
};

#[cfg(test)]
mod tests;

/// The result of writing a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The change is now the newest version.
    Won,
    /// The change lost to the same or a newer version.
    Lost,
    /// Postgres rejects the change, with this detail.
    Rejected(String),
}

/// The result of writing a batch.
#[derive(Debug, Default)]
pub(super) struct Persisted {
    /// The result of each change.
    pub(super) verdicts: HashMap<(OrderUid, Version), Verdict>,
    /// Number of changes that lost to a lower offset of their own partition, because a clock
    /// stepped back.
    pub(super) clock_steps: u64,
}

impl Persisted {
    fn lose(&mut self, loser: (OrderUid, Version), winner: Version) {
        let version = loser.1;
        if version.partition == winner.partition && version.offset > winner.offset {
            self.clock_steps += 1;
        }
        // If the batch holds a record twice, one copy may already have won.
        self.verdicts.entry(loser).or_insert(Verdict::Lost);
    }

    fn is_rejected(&self, uid: OrderUid, version: Version) -> bool {
        matches!(
            self.verdicts.get(&(uid, version)),
            Some(Verdict::Rejected(_))
        )
    }
}

/// The channel for [`Fresh`]. Redis is written as soon as a part is stored, however long the rest
/// of the batch waits. The channel is small, because its content is in memory.
pub(super) type Sink = mpsc::Sender<Fresh>;

/// Writes batches to Postgres. All batches under way share it.
pub(super) struct Persist<S> {
    pub(super) store: S,
    pub(super) breaker: Arc<RejectionBreaker>,
    pub(super) waits: Arc<Waits>,
}

impl<S: OrderStore> Persist<S> {
    /// Stores `changes`; returns when each of them is stored, outdated or rejected for its content.
    /// Sends each revision that Redis needs to `sink`.
    pub(super) async fn persist(
        &self,
        changes: Vec<Change>,
        turn: Turn,
        sink: Sink,
        waits: &BatchWaits<'_>,
    ) -> Persisted {
        let writing = Writing {
            persist: self,
            waits,
            turn,
            sink,
            parts: Parts::new(waits),
            persisted: Persisted::default(),
            outdated: Vec::new(),
        };
        writing.write(changes).await
    }

    /// Counts what Postgres accepted; closes the breaker.
    fn accepted(&self, set: &ChangeSet, applied: &Applied) {
        let stored = set.as_slice().iter().zip(&applied.won);
        let stored = stored.filter(|(change, won)| **won && change.order.is_some());
        self.breaker.accepted(set.len(), stored.count());
    }

    /// Ends sessions of frozen workers, which may hold the lock that an attempt waited for.
    async fn end_frozen_sessions(&self) {
        match self.store.end_frozen_sessions().await {
            Ok(0) => {}
            Ok(ended) => tracing::warn!(ended, "ended sessions of frozen workers that held locks"),
            Err(error) => tracing::warn!(%error, "cannot end sessions of frozen workers"),
        }
    }
}

/// One batch while it is written. Owns all of its state.
struct Writing<'b, S> {
    persist: &'b Persist<S>,
    waits: &'b BatchWaits<'b>,
    turn: Turn,
    sink: Sink,
    /// Changes that are neither stored, outdated nor rejected.
    parts: Parts<'b>,
    persisted: Persisted,
    /// Changes that lost to a version that Postgres holds.
    outdated: Vec<(OrderUid, Version)>,
}

impl<S: OrderStore> Writing<'_, S> {
    async fn write(mut self, changes: Vec<Change>) -> Persisted {
        self.persisted.verdicts.reserve(changes.len());
        let mut pending = changes;
        while !pending.is_empty() {
            pending = self.write_newest(pending).await;
        }
        self.turn.give_back();
        self.read_back().await;
        self.persisted
    }

    /// Writes the newest change of each order. Returns the older changes of an order whose newest
    /// change was rejected, because one of them may be the newest after all.
    async fn write_newest(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let (newest, superseded) = ChangeSet::new(changes);
        let winners: HashMap<OrderUid, Version> = match superseded.is_empty() {
            true => HashMap::new(),
            false => newest
                .as_slice()
                .iter()
                .map(|change| (change.uid, change.version))
                .collect(),
        };
        self.parts.push_new(newest);
        self.apply_parts().await;
        let mut pending = Vec::new();
        for change in superseded {
            match winners.get(&change.uid) {
                Some(winner) if !self.persisted.is_rejected(change.uid, *winner) => {
                    self.persisted.lose((change.uid, change.version), *winner);
                }
                _ => pending.push(change),
            }
        }
        pending
    }

    /// Applies the parts until none is left.
    async fn apply_parts(&mut self) {
        let persist = self.persist;
        while let Some(part) = self.parts.next() {
            if persist.breaker.is_open() {
                self.try_one(part).await;
                continue;
            }
            self.await_turn(&part).await;
            match persist.store.apply(&part.set).await {
                Ok(applied) => {
                    persist.accepted(&part.set, &applied);
                    self.parts.passed();
                    self.record(part.set, &applied).await;
                }
                Err(error) => self.react(part, &error).await,
            }
        }
    }

    /// Rejects, halves or queues a part that failed.
    async fn react(&mut self, part: Part, error: &StorageError) {
        // Whether the part is tried again whole or in halves: each attempt waits for the same lock.
        if error.class() == Class::Locked {
            self.turn.give_back();
            self.persist.end_frozen_sessions().await;
        }
        let breaker = &self.persist.breaker;
        let stored = breaker.stored();
        match part.remedy(error.class(), error, stored) {
            Remedy::Halve => self.parts.halve(part, stored),
            Remedy::Wait => {
                self.turn.give_back();
                self.parts.wait(part, error, stored);
            }
            Remedy::Reject if breaker.rejected(error.sqlstate().unwrap_or_default()) => {
                self.parts.passed();
                for change in part.set.into_vec() {
                    let verdict = Verdict::Rejected(error.detail());
                    let verdicts = &mut self.persisted.verdicts;
                    verdicts.insert((change.uid, change.version), verdict);
                }
            }
            // The breaker is open, so the rows wait for a trial.
            Remedy::Reject => self.parts.push_new(part.set),
        }
    }

    /// Waits for a turn to try `part`. A part that failed before first waits for its retry time,
    /// without a turn.
    async fn await_turn(&mut self, part: &Part) {
        let Some(at) = self.parts.not_before(part) else {
            return self.turn.take().await;
        };
        self.turn.give_back();
        sleep_until(at).await;
        match part.fails_alone(self.persist.breaker.stored()) {
            true => self.turn.take_to_repeat().await,
            false => self.turn.take().await,
        }
    }

    /// While the breaker is open: waits for the trial, then tries one change. Each trial takes
    /// another row, because the first one may be a bad row. Queues the changes that are left, with
    /// those of `part`, as new.
    async fn try_one(&mut self, part: Part) {
        let (persist, waits) = (self.persist, self.waits);
        let _waiting = waits.begin_alone(Wait::Breaker);
        self.turn.give_back();
        let mut rows = self.parts.take_changes();
        rows.extend(part.set.into_vec());
        rows.reverse();
        let mut retry = Retry::new("apply");
        while let Some(trial) = persist.breaker.trial().await {
            let Some(row) = rows.pop() else { break };
            let (one, _) = ChangeSet::new(vec![row]);
            let error = match persist.store.apply(&one).await {
                Ok(applied) => {
                    persist.accepted(&one, &applied);
                    drop(trial);
                    self.record(one, &applied).await;
                    break;
                }
                Err(error) => error,
            };
            rows.splice(0..0, one.into_vec());
            match error.class() {
                Class::Record | Class::Unknown => {
                    retry.succeeded(false);
                    trial.failed(error.sqlstate().unwrap_or_default());
                }
                Class::Transient
                | Class::Locked
                | Class::StalePlan
                | Class::Rival
                | Class::Deployment => {
                    drop(trial);
                    if error.class() == Class::Locked {
                        persist.end_frozen_sessions().await;
                    }
                    retry.wait_out(&persist.waits, &error).await;
                }
            }
        }
        self.parts.push_new(ChangeSet::new(rows).0);
    }

    /// Notes the result of an applied set, and sends the winners on.
    async fn record(&mut self, set: ChangeSet, applied: &Applied) {
        let mut winners = Vec::with_capacity(set.len());
        for (change, won) in set.into_vec().into_iter().zip(&applied.won) {
            if *won {
                self.persisted
                    .verdicts
                    .insert((change.uid, change.version), Verdict::Won);
                let document = change.order.map(|order| Bytes::from(order.to_json()));
                winners.push(Revision {
                    uid: change.uid,
                    version: change.version,
                    document,
                });
            } else {
                self.outdated.push((change.uid, change.version));
            }
        }
        self.send(winners, applied.as_of, applied.cache_write).await;
    }

    /// Sends revisions on to Redis. Gives the turn back if the channel is full.
    async fn send(
        &mut self,
        revisions: Vec<Revision>,
        read_at: time::Instant,
        cache_write: Option<CacheWrite>,
    ) {
        if revisions.is_empty() {
            return;
        }
        let fresh = Fresh {
            revisions,
            read_at,
            cache_write,
        };
        // The receiver lives as long as the batch, so sending cannot fail.
        if let Err(mpsc::error::TrySendError::Full(fresh)) = self.sink.try_send(fresh) {
            self.turn.give_back();
            let _ = self.sink.send(fresh).await;
        }
    }

    /// Reads the orders of outdated changes from Postgres and sends them on to Redis. A record that
    /// lost never writes its own document to Redis. The reads are done in steps, because the stored
    /// orders may be far larger than the records that lost.
    async fn read_back(&mut self) {
        let persist = self.persist;
        let outdated = std::mem::take(&mut self.outdated);
        let (mut size, mut left) = (StepSize::default(), outdated.as_slice());
        while let Some(step) = size.next(&mut left) {
            let uids: Vec<OrderUid> = step.iter().map(|(uid, _)| *uid).collect();
            let read_at = time::Instant::now();
            let revisions = read_persistently(&persist.store, &persist.waits, &uids).await;
            size.adapt(&revisions);
            let held: HashMap<&OrderUid, Version> = revisions
                .iter()
                .map(|revision| (&revision.uid, revision.version))
                .collect();
            for loser in step {
                // An order that an operator deleted meanwhile has no version to compare with.
                let winner = held.get(&loser.0).copied().unwrap_or(loser.1);
                self.persisted.lose(*loser, winner);
            }
            self.send(revisions, read_at, None).await;
        }
    }
}
