//! Gathers records into batches and runs several batches at once.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use shared::{
    order::{OrderUid, Rejection, UnknownFields},
    storage::Postgres,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    batch::{Batch, FinishBatch, Processor},
    breaker::RejectionBreaker,
    decode::{Decoded, decode_record},
    future::FutureGuard,
    persist::Persist,
    turn::{Turn, Turns},
    waits::{Wait, Waits},
    write_through::WriteThrough,
};
use crate::{
    config,
    kafka::{Assignment, Intake, Received, dead_letter::DeadLetters},
    metrics::Metrics,
};

#[cfg(test)]
mod tests;

/// Maximum batches under way at once, including those that are being written to Redis. Batches that
/// are held up do not count.
const UNDER_WAY: usize = 4;

/// Interval at which the batcher checks whether held records are still from the future.
const RECHECK: Duration = Duration::from_secs(1);

/// Maximum batches under way at once, including those that are held up, because each of them
/// retries. Batches that wait for the breaker make no attempts and do not count.
const UNDER_WAY_AT_MOST: usize = 64;

/// The pipeline and its dependencies.
pub struct Pipeline {
    /// Stores orders.
    pub postgres: Postgres,
    /// Writes stored orders through to Redis.
    pub write_through: WriteThrough,
    /// Takes records that can never be stored.
    pub dead_letters: DeadLetters,
    /// Takes the tickets of finished records.
    pub assignment: Arc<Assignment>,
    /// Stops dead-lettering when Postgres rejects too many rows.
    pub breaker: Arc<RejectionBreaker>,
    /// Holds records when every record is from the future.
    pub future: FutureGuard,
    /// The current waits.
    pub waits: Arc<Waits>,
    /// The worker's metrics.
    pub metrics: Metrics,
}

impl Pipeline {
    /// Processes records from `intake` until it closes, and returns when the last batch is
    /// finished. Records that are still held stay unfinished; a worker reads them again.
    pub async fn run(self, config: &config::Worker, intake: Intake) {
        let processor = Arc::new(Processor {
            persist: Persist {
                store: self.postgres,
                breaker: self.breaker,
                waits: Arc::clone(&self.waits),
            },
            write_through: self.write_through,
            dead_letters: self.dead_letters,
            assignment: self.assignment,
            waits: Arc::clone(&self.waits),
            metrics: self.metrics.clone(),
        });
        let batcher = Batcher::new(
            config,
            self.metrics,
            self.future,
            self.waits,
            Arc::clone(&processor),
        );
        batcher.run(intake).await;
        // This blocks the thread, but no other task is left to run.
        processor.dead_letters.flush();
    }
}

struct Batcher<P> {
    max_records: usize,
    max_bytes: usize,
    linger: Duration,
    fields: UnknownFields,
    metrics: Metrics,
    future: FutureGuard,
    /// Records from the future that the guard holds back. Their memory permits bound them.
    held: VecDeque<Received>,
    recheck_at: Instant,
    open: Batch,
    opened: Instant,
    turns: Turns,
    /// Each task returns the orders that its batch changed.
    under_way: JoinSet<Vec<OrderUid>>,
    /// The orders of the batches under way. While no batch is held up, an order is in at most one
    /// batch. Otherwise two connections would wait for each other's row locks.
    busy: HashSet<OrderUid>,
    waits: Arc<Waits>,
    processor: Arc<P>,
}

impl<P: FinishBatch> Batcher<P> {
    fn new(
        config: &config::Worker,
        metrics: Metrics,
        future: FutureGuard,
        waits: Arc<Waits>,
        processor: Arc<P>,
    ) -> Self {
        Self {
            max_records: config.batch_size,
            max_bytes: config.batch_max_bytes,
            linger: config.batch_linger,
            fields: config.unknown_fields(),
            metrics,
            future,
            held: VecDeque::new(),
            recheck_at: Instant::now(),
            open: Batch::default(),
            opened: Instant::now(),
            turns: Turns::new(),
            under_way: JoinSet::new(),
            busy: HashSet::new(),
            waits,
            processor,
        }
    }

    async fn run(mut self, mut intake: Intake) {
        let waits = Arc::clone(&self.waits);
        let mut waiting = None;
        let mut ended = false;
        while !(ended && self.is_idle()) {
            self.release_held();
            if waiting.is_some() != self.future.is_closed() {
                waiting = self.future.is_closed().then(|| waits.begin(Wait::Clock));
            }
            let may_dispatch = self.is_due(ended || intake.is_empty()) && self.has_room();
            tokio::select! {
                biased;
                turn = self.turns.clone().next(), if may_dispatch => {
                    let Some(turn) = turn else { return };
                    self.dispatch(turn);
                }
                Some(finished) = self.under_way.join_next() => self.release(finished),
                received = intake.recv(), if !ended && self.may_take() => match received {
                    Some(received) => self.take(received),
                    None => ended = true,
                },
                () = sleep_until(self.recheck_at), if self.future.is_closed() => self.recheck(),
                () = sleep_until(self.opened + self.linger), if self.lingers() => {}
            }
        }
    }

    /// Decodes a record and adds it to the open batch, or holds it back.
    fn take(&mut self, received: Received) {
        let decoded = self.decode(&received);
        if self.future.admits(&decoded) {
            self.push(received, decoded);
        } else {
            self.held.push_back(received);
        }
    }

    fn decode(&self, received: &Received) -> Result<Decoded, Rejection> {
        decode_record(&received.record, self.fields, self.future.clock.now())
    }

    fn push(&mut self, received: Received, decoded: Result<Decoded, Rejection>) {
        if self.open.is_empty() {
            self.opened = Instant::now();
        }
        match decoded {
            Ok(decoded) => {
                if decoded.unknown_fields > 0 {
                    self.metrics.unknown_fields(decoded.unknown_fields);
                }
                self.open.push_change(received, decoded.change);
            }
            Err(rejection) => {
                let (partition, offset) = (received.record.partition, received.record.offset);
                tracing::debug!(
                    partition,
                    offset,
                    reason = %rejection.reason,
                    detail = rejection.detail,
                    "record can never be stored"
                );
                self.open.push_invalid(received, rejection);
            }
        }
    }

    /// Decodes the oldest held record again. If it is no longer from the future, a clock was
    /// corrected and the guard opens.
    fn recheck(&mut self) {
        self.recheck_at = Instant::now() + RECHECK;
        if let Some(oldest) = self.held.front() {
            let decoded = self.decode(oldest);
            self.future.admits(&decoded);
        }
    }

    /// Moves held records into the open batch while the guard is open.
    fn release_held(&mut self) {
        while !self.future.is_closed()
            && !self.is_full()
            && let Some(received) = self.held.pop_front()
        {
            let decoded = self.decode(&received);
            self.push(received, decoded);
        }
    }

    /// Returns whether no work is left. Records that stay held do not count: they are not finished,
    /// so a worker reads them again.
    fn is_idle(&self) -> bool {
        let releases = !self.held.is_empty() && !self.future.is_closed();
        self.open.is_empty() && self.under_way.is_empty() && !releases
    }

    /// Returns whether to receive a record. Held records that are released go first.
    fn may_take(&self) -> bool {
        !self.is_full() && (self.held.is_empty() || self.future.is_closed())
    }

    fn is_full(&self) -> bool {
        self.open.len() >= self.max_records || self.open.bytes() >= self.max_bytes
    }

    fn lingered(&self) -> bool {
        self.opened.elapsed() >= self.linger
    }

    /// Returns whether the open batch waits for more records.
    fn lingers(&self) -> bool {
        !self.open.is_empty() && !self.lingered()
    }

    /// Returns whether to write the open batch. An idle worker writes it at once. A busy one waits
    /// for more records, because larger batches cost less per record.
    fn is_due(&self, nothing_waits: bool) -> bool {
        if self.open.is_empty() {
            return false;
        }
        self.is_full() || (nothing_waits && (self.under_way.is_empty() || self.lingered()))
    }

    /// Returns whether another batch may start.
    ///
    /// Batches that are held up, by their own rows or by the dead letter topic, take no room. A row
    /// that fails is known to be at fault only when rows behind it pass. Memory permits bound the
    /// intake.
    fn has_room(&self) -> bool {
        let (waits, under_way) = (&self.waits, self.under_way.len());
        let (held_up, for_breaker) = (waits.held_up(), waits.count(Wait::Breaker));
        if under_way.saturating_sub(held_up) >= UNDER_WAY
            || under_way.saturating_sub(for_breaker) >= UNDER_WAY_AT_MOST
        {
            return false;
        }
        // A batch that is held up must not hold up this one, even if both change the same order.
        // Then one waits for the other's row lock, and the version decides.
        held_up > 0 || !self.open.uids().any(|uid| self.busy.contains(uid))
    }

    fn dispatch(&mut self, turn: Turn) {
        let batch = std::mem::take(&mut self.open);
        let uids: Vec<OrderUid> = batch.uids().cloned().collect();
        self.busy.extend(uids.iter().cloned());
        let processor = Arc::clone(&self.processor);
        self.under_way.spawn(async move {
            processor.process(batch, turn).await;
            uids
        });
    }

    fn release(&mut self, finished: Result<Vec<OrderUid>, tokio::task::JoinError>) {
        match finished {
            Ok(uids) => uids.iter().for_each(|uid| {
                self.busy.remove(uid);
            }),
            // The offsets of this batch are not stored, and nothing would ever store them. End the
            // process, so that another worker reads the records again. (Release builds abort at the
            // panic itself.)
            Err(error) => {
                tracing::error!(%error, "batch panicked; ending the process");
                std::process::abort();
            }
        }
    }
}
