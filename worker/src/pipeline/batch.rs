//! One batch, from decoded records to finished ones.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use shared::{
    order::{OrderUid, Reason, Rejection, Version},
    storage::Change,
};
use tokio::sync::mpsc;

use super::{
    persist::{Persist, Persisted, Sink, Verdict},
    retry::dead_letter_persistently,
    services::{DeadLetterSink, OrderCache, OrderStore, RepairLog},
    trace::{BatchTrace, Times},
    turn::Turn,
    waits::{BatchWaits, Waits},
    write_through::{Fresh, WriteThrough},
};
use crate::{
    kafka::{Assignment, Received, Record, Ticket},
    metrics::{BatchStage, Metrics, Outcome},
};

#[cfg(test)]
mod tests;

/// A record and its intent: store, erase or dead-letter.
struct Entry {
    received: Received,
    intent: Intent,
}

enum Intent {
    Store { uid: OrderUid, version: Version },
    Erase { uid: OrderUid, version: Version },
    DeadLetter(Rejection),
}

/// Records that are finished together.
#[derive(Default)]
pub(super) struct Batch {
    entries: Vec<Entry>,
    changes: Vec<Change>,
    bytes: usize,
}

impl Batch {
    pub(super) fn push_change(&mut self, received: Received, change: Change) {
        let (uid, version) = (change.uid, change.version);
        let intent = match change.order {
            Some(_) => Intent::Store { uid, version },
            None => Intent::Erase { uid, version },
        };
        self.changes.push(change);
        self.push(received, intent);
    }

    pub(super) fn push_invalid(&mut self, received: Received, rejection: Rejection) {
        self.push(received, Intent::DeadLetter(rejection));
    }

    fn push(&mut self, received: Received, intent: Intent) {
        self.bytes += received.record.size();
        self.entries.push(Entry { received, intent });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the size of all keys, values and headers, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the tickets of its records.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        let entries = self.entries.iter();
        entries.map(|entry| entry.received.ticket).collect()
    }

    /// Returns the orders that it changes. An order may appear more than once.
    pub(super) fn uids(&self) -> impl Iterator<Item = &OrderUid> {
        self.changes.iter().map(|change| &change.uid)
    }
}

/// Finishes batches. The batcher knows no more of what happens to a batch.
pub(super) trait FinishBatch: Send + Sync + 'static {
    /// Finishes `batch`. Gives `turn` back as soon as it no longer uses Postgres.
    fn process(&self, batch: Batch, turn: Turn) -> impl Future<Output = ()> + Send;
}

/// Finishes batches. All batches under way share it.
pub(super) struct Processor<S, C, D> {
    pub(super) persist: Persist<S>,
    pub(super) write_through: WriteThrough<C, S>,
    pub(super) dead_letters: D,
    pub(super) assignment: Arc<Assignment>,
    pub(super) waits: Arc<Waits>,
    pub(super) metrics: Metrics,
}

impl<S, C, D> FinishBatch for Processor<S, C, D>
where
    S: OrderStore + RepairLog,
    C: OrderCache,
    D: DeadLetterSink,
{
    /// Finishes `batch`. Every stored change reaches Redis or is marked for repair, and every
    /// record that cannot be stored reaches the dead letter topic, before any offset of the batch
    /// counts as finished.
    ///
    /// Postgres, Redis and the dead letter topic are written concurrently. `turn` is given back as
    /// soon as Postgres is done, so that the next batch is written while this one goes to Redis.
    async fn process(&self, mut batch: Batch, turn: Turn) {
        self.metrics.batch(batch.len());
        let mut trace = BatchTrace::begin(batch.entries.iter().map(|entry| &entry.received.record));
        let changes = std::mem::take(&mut batch.changes);
        let (sink, fresh) = mpsc::channel(1);
        let waits = self.waits.batch();

        let ((outcome, persisted), written_through, dead_lettered) = tokio::join!(
            self.store(changes, turn, sink, &waits),
            self.write_through(fresh),
            self.dead_letter_invalid(&batch, &waits)
        );
        trace.parts_are_over(Times {
            persisted,
            written_through,
            dead_lettered,
        });

        let outcomes = self.settle(&batch, outcome.verdicts, &waits).await;
        self.metrics.clock_stepped_back(outcome.clock_steps);
        if outcome.clock_steps > 0 {
            tracing::warn!(
                records = outcome.clock_steps,
                "records lost to a lower offset of their partition: a clock stepped back"
            );
        }
        self.finish(batch, &outcomes);
        trace.finished(&outcomes);
    }
}

impl<S, C, D> Processor<S, C, D>
where
    S: OrderStore + RepairLog,
    C: OrderCache,
    D: DeadLetterSink,
{
    async fn store(
        &self,
        changes: Vec<Change>,
        turn: Turn,
        sink: Sink,
        waits: &BatchWaits<'_>,
    ) -> (Persisted, SystemTime) {
        let started = Instant::now();
        let persisted = self.persist.persist(changes, turn, sink, waits).await;
        self.metrics.stage(BatchStage::Persist, started.elapsed());
        (persisted, SystemTime::now())
    }

    /// Writes stored revisions through to Redis until `fresh` is closed; returns when that was.
    async fn write_through(&self, mut fresh: mpsc::Receiver<Fresh>) -> SystemTime {
        let mut spent = Duration::ZERO;
        while let Some(fresh) = fresh.recv().await {
            let (started, read_at) = (Instant::now(), fresh.read_at);
            self.write_through.write(fresh).await;
            self.metrics.visible(read_at.elapsed());
            spent += started.elapsed();
        }
        self.metrics.stage(BatchStage::WriteThrough, spent);
        SystemTime::now()
    }

    async fn dead_letter_invalid(&self, batch: &Batch, waits: &BatchWaits<'_>) -> SystemTime {
        let invalid = batch
            .entries
            .iter()
            .filter_map(|entry| match &entry.intent {
                Intent::DeadLetter(rejection) => Some((&entry.received.record, rejection)),
                Intent::Store { .. } | Intent::Erase { .. } => None,
            });
        self.dead_letter_all(invalid, waits).await;
        SystemTime::now()
    }

    async fn dead_letter_all<'a>(
        &self,
        records: impl Iterator<Item = (&'a Record, &'a Rejection)>,
        waits: &BatchWaits<'_>,
    ) {
        let mut sends = Vec::new();
        for (record, rejection) in records {
            sends.push(self.dead_letter(record, rejection, waits));
        }
        if sends.is_empty() {
            return;
        }
        let started = Instant::now();
        join_all(sends).await;
        self.metrics
            .stage(BatchStage::DeadLetter, started.elapsed());
    }

    async fn dead_letter(&self, record: &Record, rejection: &Rejection, waits: &BatchWaits<'_>) {
        dead_letter_persistently(&self.dead_letters, waits, record, rejection).await;
        self.metrics.dead_lettered(rejection.reason, 1);
    }

    /// Returns the outcome of each entry; dead-letters the rows that Postgres rejected.
    async fn settle(
        &self,
        batch: &Batch,
        mut verdicts: HashMap<(OrderUid, Version), Verdict>,
        waits: &BatchWaits<'_>,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rejected = Vec::new();
        for entry in &batch.entries {
            let (uid, version, won) = match &entry.intent {
                Intent::Store { uid, version } => (uid, version, Outcome::Stored),
                Intent::Erase { uid, version } => (uid, version, Outcome::Erased),
                Intent::DeadLetter(_) => {
                    outcomes.push(Outcome::Invalid);
                    continue;
                }
            };
            outcomes.push(match verdicts.get_mut(&(*uid, *version)) {
                Some(verdict @ Verdict::Won) => {
                    // A record that is in the batch twice counts as stored once.
                    *verdict = Verdict::Lost;
                    won
                }
                Some(Verdict::Rejected(detail)) => {
                    let rejection = Rejection {
                        reason: Reason::RejectedByDatabase,
                        detail: detail.clone(),
                    };
                    rejected.push((&entry.received.record, rejection));
                    Outcome::Failed
                }
                Some(Verdict::Lost) => Outcome::Stale,
                None => {
                    // The record is neither stored nor rejected, so its offset must not be stored.
                    tracing::error!(%uid, %version, "a record has no verdict; ending the process");
                    std::process::abort();
                }
            });
        }
        let rejected = rejected
            .iter()
            .map(|(record, rejection)| (*record, rejection));
        self.dead_letter_all(rejected, waits).await;
        outcomes
    }

    fn finish(&self, batch: Batch, outcomes: &[Outcome]) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as i64;
        for outcome in [
            Outcome::Stored,
            Outcome::Erased,
            Outcome::Stale,
            Outcome::Invalid,
            Outcome::Failed,
        ] {
            let count = outcomes.iter().filter(|each| **each == outcome).count();
            if count > 0 {
                self.metrics.finished(outcome, count as u64);
            }
        }
        for (entry, outcome) in batch.entries.iter().zip(outcomes) {
            if matches!(outcome, Outcome::Stored | Outcome::Erased) {
                let millis = (now - entry.received.record.timestamp.millis()).max(0);
                self.metrics.end_to_end(millis as f64 / 1000.0);
            }
        }
        if self.assignment.finish(&batch.tickets()) {
            self.waits.progressed();
        }
    }
}
