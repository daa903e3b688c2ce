//! Into Postgres: retried for as long as it takes, bisected where a row is refused.

use std::{collections::HashMap, sync::Arc, time::Instant};

use bytes::Bytes;
use shared::{
    fault::Rule,
    order::{OrderUid, Revision, Version},
    runtime::backoff::Backoff,
    storage::{Applied, CacheWrite, Change, ChangeSet, Class, Postgres, StorageError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    breaker::Breaker,
    pace::Pace,
    waits::{Wait, Waits},
    write_through::Fresh,
};

/// While something is waited for, say so at the first attempt and then at each so many'th.
const COMPLAIN_EVERY: u32 = 12;

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the newest version now.
    Won,
    /// It lost to the same or a newer version.
    Lost,
    /// The database refuses it, with this SQLSTATE.
    Refused(String),
}

/// What became of a batch.
pub(super) struct Persisted {
    /// What became of each change.
    pub(super) verdicts: HashMap<(OrderUid, Version), Verdict>,
    /// Changes that lost to a lower offset of their own partition: a clock stepped back.
    pub(super) clock_steps: u64,
}

impl Persisted {
    fn lose(&mut self, loser: (OrderUid, Version), winner: Version) {
        let version = loser.1;
        if version.partition == winner.partition && version.offset > winner.offset {
            self.clock_steps += 1;
        }
        // Of two copies of one record, one has won.
        self.verdicts.entry(loser).or_insert(Verdict::Lost);
    }
}

/// Where [`Fresh`] goes as soon as it is known: whatever else the batch has to wait for, Redis does not. It takes little at
/// once, for what is on its way is in memory.
pub(super) type Sink = mpsc::Sender<Fresh>;

/// The right of a batch to use Postgres. A batch that waits for its trial gives it back, or two batches that the database
/// refuses would keep out the one that it accepts.
pub(super) struct Turn {
    turns: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    pub(super) fn new(turns: Arc<Semaphore>, permit: OwnedSemaphorePermit) -> Self {
        Self {
            turns,
            permit: Some(permit),
        }
    }

    fn give_back(&mut self) {
        self.permit = None;
    }

    async fn take(&mut self) {
        // Never closed; and without a permit the batch would only be one too many.
        self.permit = Arc::clone(&self.turns).acquire_owned().await.ok();
    }
}

/// Writes batches to Postgres.
#[derive(Clone)]
pub(super) struct Persist {
    pub(super) postgres: Postgres,
    pub(super) breaker: Arc<Breaker>,
    pub(super) waits: Arc<Waits>,
}

impl Persist {
    /// Stores `changes`; returns when each is stored, found to be outdated, or refused for what it says.
    pub(super) async fn persist(
        &self,
        changes: Vec<Change>,
        mut turn: Turn,
        sink: Sink,
    ) -> Persisted {
        let mut persisted = Persisted {
            verdicts: HashMap::with_capacity(changes.len()),
            clock_steps: 0,
        };
        let mut outdated = Vec::new();
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
            let refused = self
                .apply(newest, &mut turn, &sink, &mut persisted, &mut outdated)
                .await;
            pending = Vec::new();
            for change in superseded {
                match winners.get(&change.uid) {
                    Some(winner) if !refused.contains(&change.uid) => {
                        persisted.lose((change.uid, change.version), *winner);
                    }
                    // What it lost to was refused, so it may be the newest after all.
                    _ => pending.push(change),
                }
            }
        }
        if !outdated.is_empty() {
            self.read_back(outdated, &sink, &mut persisted).await;
        }
        persisted
    }

    /// Applies `set`; returns the orders of which a change was refused.
    async fn apply(
        &self,
        set: ChangeSet,
        turn: &mut Turn,
        sink: &Sink,
        persisted: &mut Persisted,
        outdated: &mut Vec<(OrderUid, Version)>,
    ) -> Vec<OrderUid> {
        let whole = set.len();
        let mut refused = Vec::new();
        let mut sets = vec![set];
        let mut backoff = Backoff::default();
        while let Some(set) = sets.pop() {
            if self.breaker.is_open() {
                let left = self.try_one(set, turn, sink, persisted, outdated).await;
                if !left.is_empty() {
                    sets.push(left);
                }
                continue;
            }
            let error = match self.postgres.apply(&set).await {
                Ok(applied) => {
                    self.breaker.accepted(set.len());
                    backoff = Backoff::default();
                    record(set, &applied, sink, persisted, outdated).await;
                    continue;
                }
                Err(error) => error,
            };
            let class = match error.class() {
                Class::Transient if Rule::TransientIsNoVerdict.is_broken() => Class::Record,
                class => class,
            };
            match class {
                Class::Record if set.len() == 1 => {
                    let code = error.sqlstate().unwrap_or_default();
                    if self.breaker.refused(code) {
                        for change in set.into_vec() {
                            refused.push(change.uid);
                            persisted.verdicts.insert(
                                (change.uid, change.version),
                                Verdict::Refused(code.to_owned()),
                            );
                        }
                    } else {
                        sets.push(set);
                    }
                }
                // An unknown error is bisected once, so that half of the batch may be stored; then it is waited out.
                Class::Record => halve(set, &mut sets),
                Class::Unknown if set.len() == whole && whole > 1 => halve(set, &mut sets),
                Class::Transient
                | Class::Locked
                | Class::StalePlan
                | Class::Rival
                | Class::Deployment
                | Class::Unknown => {
                    self.wait_out(&error, &mut backoff).await;
                    sets.push(set);
                }
            }
        }
        refused
    }

    /// While the breaker is open: waits for the turn, then tries one row of `set`, another one each time, for the first
    /// may be the one that deserves to be refused. Returns what is left to do.
    async fn try_one(
        &self,
        set: ChangeSet,
        turn: &mut Turn,
        sink: &Sink,
        persisted: &mut Persisted,
        outdated: &mut Vec<(OrderUid, Version)>,
    ) -> ChangeSet {
        let _waiting = self.waits.begin(Wait::Breaker);
        turn.give_back();
        let mut rows = set.into_vec();
        rows.reverse();
        let mut backoff = Backoff::default();
        while let Some(trial) = self.breaker.trial().await {
            let Some(row) = rows.pop() else { break };
            let (one, _) = ChangeSet::new(vec![row]);
            match self.postgres.apply(&one).await {
                Ok(applied) => {
                    self.breaker.accepted(1);
                    record(one, &applied, sink, persisted, outdated).await;
                    break;
                }
                Err(error) if error.class() == Class::Record => {
                    trial.failed(error.sqlstate().unwrap_or_default());
                    rows.splice(0..0, one.into_vec());
                }
                Err(error) => {
                    drop(trial);
                    rows.extend(one.into_vec());
                    self.wait_out(&error, &mut backoff).await;
                }
            }
        }
        turn.take().await;
        ChangeSet::new(rows).0
    }

    async fn wait_out(&self, error: &StorageError, backoff: &mut Backoff) {
        if error.class() == Class::Locked {
            self.end_frozen_sessions().await;
        }
        wait_out(&self.waits, "apply", error, backoff).await;
    }

    async fn end_frozen_sessions(&self) {
        match self.postgres.end_frozen_sessions().await {
            Ok(0) => {}
            Ok(ended) => tracing::warn!(ended, "ended sessions of frozen workers that held locks"),
            Err(error) => tracing::warn!(%error, "sessions of frozen workers could not be ended"),
        }
    }

    /// A record that lost never writes its own body to the cache: what Postgres holds is read back, in steps, for it may be far
    /// larger than what lost to it.
    async fn read_back(
        &self,
        outdated: Vec<(OrderUid, Version)>,
        sink: &Sink,
        persisted: &mut Persisted,
    ) {
        let (mut pace, mut left) = (Pace::default(), outdated.as_slice());
        while let Some(step) = pace.step(&mut left) {
            let uids: Vec<OrderUid> = step.iter().map(|(uid, _)| *uid).collect();
            let read_at = Instant::now();
            let revisions = read_persistently(&self.postgres, &self.waits, &uids).await;
            pace.adapt(&revisions);
            let held: HashMap<&OrderUid, Version> = revisions
                .iter()
                .map(|revision| (&revision.uid, revision.version))
                .collect();
            for loser in step {
                // An order that somebody deleted by hand in between has no version to compare with.
                let winner = held.get(&loser.0).copied().unwrap_or(loser.1);
                persisted.lose(*loser, winner);
            }
            send(sink, revisions, read_at, None).await;
        }
    }
}

fn halve(set: ChangeSet, sets: &mut Vec<ChangeSet>) {
    let (left, right) = set.halve();
    sets.push(right);
    sets.push(left);
}

/// Notes what an applied set did, and sends the winners on.
async fn record(
    set: ChangeSet,
    applied: &Applied,
    sink: &Sink,
    persisted: &mut Persisted,
    outdated: &mut Vec<(OrderUid, Version)>,
) {
    let mut winners = Vec::with_capacity(set.len());
    for (change, won) in set.into_vec().into_iter().zip(&applied.won) {
        if *won {
            persisted
                .verdicts
                .insert((change.uid, change.version), Verdict::Won);
            let document = change.order.map(|order| Bytes::from(order.to_json()));
            winners.push(Revision {
                uid: change.uid,
                version: change.version,
                document,
            });
        } else {
            outdated.push((change.uid, change.version));
        }
    }
    send(sink, winners, applied.as_of, applied.cache_write).await;
}

async fn send(
    sink: &Sink,
    revisions: Vec<Revision>,
    read_at: Instant,
    cache_write: Option<CacheWrite>,
) {
    if !revisions.is_empty() {
        let fresh = Fresh {
            revisions,
            read_at,
            cache_write,
        };
        // The receiver lives as long as the batch.
        let _ = sink.send(fresh).await;
    }
}

/// Reads orders, for as long as it takes.
pub(super) async fn read_persistently(
    postgres: &Postgres,
    waits: &Waits,
    uids: &[OrderUid],
) -> Vec<Revision> {
    let mut backoff = Backoff::default();
    loop {
        match postgres.read_many(uids).await {
            Ok(revisions) => return revisions,
            Err(error) => wait_out(waits, "read_many", &error, &mut backoff).await,
        }
    }
}

/// Marks orders for repair, for as long as it takes.
pub(super) async fn mark_persistently(postgres: &Postgres, waits: &Waits, uids: &[OrderUid]) {
    let mut backoff = Backoff::default();
    while let Err(error) = postgres.mark_for_repair(uids).await {
        wait_out(waits, "mark_for_repair", &error, &mut backoff).await;
    }
}

async fn wait_out(waits: &Waits, call: &'static str, error: &StorageError, backoff: &mut Backoff) {
    let wait = match error.class() {
        Class::Transient | Class::StalePlan | Class::Rival => Wait::Postgres,
        Class::Locked => Wait::Lock,
        Class::Deployment | Class::Record | Class::Unknown => Wait::Deployment,
    };
    let _waiting = waits.begin(wait);
    if backoff.attempts().is_multiple_of(COMPLAIN_EVERY) {
        match wait {
            Wait::Deployment => {
                tracing::error!(call, %error, "Postgres cannot be used as it is deployed; nothing is dead-lettered, trying again until somebody mends it");
            }
            _ => {
                tracing::warn!(call, %error, attempts = backoff.attempts(), "waiting for Postgres")
            }
        }
    }
    backoff.wait().await;
}
