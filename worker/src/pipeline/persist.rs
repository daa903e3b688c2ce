//! Writes batches to Postgres: retries transient errors, bisects a batch that holds a rejected row.

use std::{collections::HashMap, sync::Arc, time};

use bytes::Bytes;
use shared::{
    order::{OrderUid, Revision, Version},
    storage::{Applied, CacheWrite, Change, ChangeSet, Class, Postgres, StorageError},
};
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    breaker::RejectionBreaker,
    parts::{Part, Parts, Remedy},
    retry::{Retry, read_persistently},
    step_size::StepSize,
    turn::Turn,
    waits::{BatchWaits, Wait, Waits},
    write_through::Fresh,
};

/// The result of writing a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The change is now the newest version.
    Won,
    /// The change lost to the same or a newer version.
    Lost,
    /// Postgres rejects the change, with this detail.
    Refused(String),
}

/// The result of writing a batch.
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
}

/// The channel for [`Fresh`]. Redis is written as soon as a part is stored, however long the rest
/// of the batch waits. The channel is small, because its content is in memory.
pub(super) type Sink = mpsc::Sender<Fresh>;

/// The state of one batch while it is written.
pub(super) struct Writing<'w> {
    pub(super) turn: Turn,
    pub(super) sink: Sink,
    pub(super) waits: &'w BatchWaits<'w>,
    persisted: Persisted,
    /// Changes that lost to a version that Postgres holds.
    outdated: Vec<(OrderUid, Version)>,
}

impl<'w> Writing<'w> {
    /// Creates the state of a batch of which nothing is written.
    pub(super) fn new(turn: Turn, sink: Sink, waits: &'w BatchWaits<'w>) -> Self {
        Self {
            turn,
            sink,
            waits,
            persisted: Persisted {
                verdicts: HashMap::new(),
                clock_steps: 0,
            },
            outdated: Vec::new(),
        }
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
}

/// Writes batches to Postgres.
#[derive(Clone)]
pub(super) struct Persist {
    pub(super) postgres: Postgres,
    pub(super) breaker: Arc<RejectionBreaker>,
    pub(super) waits: Arc<Waits>,
}

impl Persist {
    /// Stores `changes`; returns when each of them is stored, outdated or rejected for its content.
    pub(super) async fn persist(
        &self,
        changes: Vec<Change>,
        mut writing: Writing<'_>,
    ) -> Persisted {
        writing.persisted.verdicts.reserve(changes.len());
        let mut pending = changes;
        while !pending.is_empty() {
            let (newest, superseded) = ChangeSet::new(pending);
            let winners: HashMap<OrderUid, Version> = match superseded.is_empty() {
                true => HashMap::new(),
                false => newest
                    .as_slice()
                    .iter()
                    .map(|change| (change.uid, change.version))
                    .collect(),
            };
            let refused = self.apply(newest, &mut writing).await;
            pending = Vec::new();
            for change in superseded {
                match winners.get(&change.uid) {
                    Some(winner) if !refused.contains(&change.uid) => {
                        writing
                            .persisted
                            .lose((change.uid, change.version), *winner);
                    }
                    // The newer change was rejected, so this one may be the newest after all.
                    _ => pending.push(change),
                }
            }
        }
        writing.turn.give_back();
        self.read_back(&mut writing).await;
        writing.persisted
    }

    /// Applies `set`; returns the orders with a rejected change.
    async fn apply(&self, set: ChangeSet, writing: &mut Writing<'_>) -> Vec<OrderUid> {
        let mut refused = Vec::new();
        let mut parts = Parts::of(set, writing.waits);
        while let Some(part) = parts.next() {
            if self.breaker.is_open() {
                let mut changes = parts.take_changes();
                changes.extend(part.set.into_vec());
                parts.push_new(self.try_one(changes, writing).await);
                continue;
            }
            self.await_turn(&parts, &part, writing).await;
            let error = match self.postgres.apply(&part.set).await {
                Ok(applied) => {
                    self.accepted(&part.set, &applied);
                    parts.passed();
                    writing.record(part.set, &applied).await;
                    continue;
                }
                Err(error) => error,
            };
            let stored = self.breaker.stored();
            match part.remedy(error.class(), &error, stored) {
                Remedy::Halve => parts.halve(part, stored),
                Remedy::Wait => {
                    writing.turn.give_back();
                    parts.wait(part, &error, stored);
                    self.free_locks(&error).await;
                }
                Remedy::Refuse if self.breaker.refused(error.sqlstate().unwrap_or_default()) => {
                    parts.passed();
                    for change in part.set.into_vec() {
                        refused.push(change.uid);
                        let verdict = Verdict::Refused(error.detail());
                        let verdicts = &mut writing.persisted.verdicts;
                        verdicts.insert((change.uid, change.version), verdict);
                    }
                }
                Remedy::Refuse => parts.push_new(part.set),
            }
        }
        refused
    }

    /// Waits for a turn to try `part`. A part that failed before first waits for its retry time,
    /// without a turn.
    async fn await_turn(&self, parts: &Parts<'_>, part: &Part, writing: &mut Writing<'_>) {
        let Some(at) = parts.not_before(part) else {
            return writing.turn.take().await;
        };
        writing.turn.give_back();
        sleep_until(at).await;
        match part.fails_alone(self.breaker.stored()) {
            true => writing.turn.take_to_repeat().await,
            false => writing.turn.take().await,
        }
    }

    fn accepted(&self, set: &ChangeSet, applied: &Applied) {
        let stored = set.as_slice().iter().zip(&applied.won);
        let stored = stored.filter(|(change, won)| **won && change.order.is_some());
        self.breaker.accepted(set.len(), stored.count());
    }

    /// While the breaker is open: waits for the trial, then tries one of `changes`. Each trial
    /// takes another row, because the first one may be a bad row. Returns the changes that are
    /// left.
    async fn try_one(&self, changes: Vec<Change>, writing: &mut Writing<'_>) -> ChangeSet {
        let _waiting = writing.waits.begin_alone(Wait::Breaker);
        writing.turn.give_back();
        let mut rows = changes;
        rows.reverse();
        let mut retry = Retry::new("apply");
        while let Some(trial) = self.breaker.trial().await {
            let Some(row) = rows.pop() else { break };
            let (one, _) = ChangeSet::new(vec![row]);
            let error = match self.postgres.apply(&one).await {
                Ok(applied) => {
                    self.accepted(&one, &applied);
                    drop(trial);
                    writing.record(one, &applied).await;
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
                    self.free_locks(&error).await;
                    retry.wait_out(&self.waits, &error).await;
                }
            }
        }
        ChangeSet::new(rows).0
    }

    /// Ends sessions of frozen workers if `error` is a lock that was held for too long.
    async fn free_locks(&self, error: &StorageError) {
        if error.class() != Class::Locked {
            return;
        }
        match self.postgres.end_frozen_sessions().await {
            Ok(0) => {}
            Ok(ended) => tracing::warn!(ended, "ended sessions of frozen workers that held locks"),
            Err(error) => tracing::warn!(%error, "sessions of frozen workers could not be ended"),
        }
    }

    /// Reads the orders of outdated changes from Postgres and sends them on to Redis. A record that
    /// lost never writes its own document to Redis. The reads are done in steps, because the stored
    /// orders may be far larger than the records that lost.
    async fn read_back(&self, writing: &mut Writing<'_>) {
        let outdated = std::mem::take(&mut writing.outdated);
        let (mut size, mut left) = (StepSize::default(), outdated.as_slice());
        while let Some(step) = size.next(&mut left) {
            let uids: Vec<OrderUid> = step.iter().map(|(uid, _)| *uid).collect();
            let read_at = time::Instant::now();
            let revisions = read_persistently(&self.postgres, &self.waits, &uids).await;
            size.adapt(&revisions);
            let held: HashMap<&OrderUid, Version> = revisions
                .iter()
                .map(|revision| (&revision.uid, revision.version))
                .collect();
            for loser in step {
                // An order that an operator deleted meanwhile has no version to compare with.
                let winner = held.get(&loser.0).copied().unwrap_or(loser.1);
                writing.persisted.lose(*loser, winner);
            }
            writing.send(revisions, read_at, None).await;
        }
    }
}
