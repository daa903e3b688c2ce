//! Gathers records into batches and keeps enough of them under way.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use shared::{
    order::{ForeignFields, OrderUid},
    storage::{BATCHES_AT_ONCE, Postgres},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    batch::{Batch, Processor},
    breaker::Breaker,
    decode::decode_record,
    persist::{Persist, Turn},
    waits::{Wait, Waits},
    write_through::WriteThrough,
};
use crate::{
    config,
    kafka::{Assignment, Intake, Received, dead_letter::DeadLetters},
    metrics::Metrics,
};

/// Batches under way at once, those on their way to Redis included.
const UNDER_WAY: usize = 4;

/// What the pipeline works with.
pub struct Pipeline {
    /// Where orders are stored.
    pub postgres: Postgres,
    /// How they reach Redis.
    pub write_through: WriteThrough,
    /// Where what can never be stored goes.
    pub dead_letters: DeadLetters,
    /// Where finished records are reported.
    pub assignment: Arc<Assignment>,
    /// Stops when the database refuses too much.
    pub breaker: Arc<Breaker>,
    /// What is waited for.
    pub waits: Arc<Waits>,
    /// What is counted.
    pub metrics: Metrics,
}

impl Pipeline {
    /// Takes records from `intake` until that ends, and returns when the last of them is finished.
    pub async fn run(self, config: &config::Worker, intake: Intake) {
        let processor = Arc::new(Processor {
            persist: Persist {
                postgres: self.postgres,
                breaker: self.breaker,
                waits: Arc::clone(&self.waits),
            },
            write_through: self.write_through,
            dead_letters: self.dead_letters,
            assignment: self.assignment,
            waits: self.waits,
            metrics: self.metrics.clone(),
        });
        let batcher = Batcher {
            max_records: config.batch_size,
            max_bytes: config.batch_max_bytes,
            linger: config.batch_linger,
            fields: if config.strict_fields {
                ForeignFields::Refuse
            } else {
                ForeignFields::Ignore
            },
            metrics: self.metrics,
            open: Batch::default(),
            opened: Instant::now(),
            in_postgres: Arc::new(Semaphore::new(BATCHES_AT_ONCE as usize)),
            under_way: JoinSet::new(),
            busy: HashSet::new(),
            processor: Arc::clone(&processor),
        };
        batcher.run(intake).await;
        // Blocks, but nothing else is left to run.
        processor.dead_letters.flush();
    }
}

struct Batcher {
    max_records: usize,
    max_bytes: usize,
    linger: Duration,
    fields: ForeignFields,
    metrics: Metrics,
    open: Batch,
    opened: Instant,
    in_postgres: Arc<Semaphore>,
    /// Each hands back the orders that it wrote.
    under_way: JoinSet<Vec<OrderUid>>,
    /// The orders of the batches under way: never more than one batch per order, or two connections would wait for each
    /// other's rows.
    busy: HashSet<OrderUid>,
    processor: Arc<Processor>,
}

impl Batcher {
    async fn run(mut self, mut intake: Intake) {
        let mut ended = false;
        while !(ended && self.open.is_empty() && self.under_way.is_empty()) {
            let may_dispatch = self.is_due(ended || intake.is_empty()) && self.has_room();
            tokio::select! {
                biased;
                permit = Arc::clone(&self.in_postgres).acquire_owned(), if may_dispatch => {
                    // Never closed, so there is always a permit to come.
                    let Ok(permit) = permit else { return };
                    self.dispatch(permit);
                }
                Some(finished) = self.under_way.join_next() => self.release(finished),
                received = intake.recv(), if !ended && !self.is_full() => match received {
                    Some(received) => self.take(received),
                    None => ended = true,
                },
                () = sleep_until(self.opened + self.linger), if !self.open.is_empty() && !self.lingered() => {}
            }
        }
    }

    /// Decodes a record into the open batch.
    fn take(&mut self, received: Received) {
        if self.open.is_empty() {
            self.opened = Instant::now();
        }
        match decode_record(&received.record, self.fields, SystemTime::now()) {
            Ok(decoded) => {
                if decoded.foreign_fields > 0 {
                    self.metrics.foreign_fields(decoded.foreign_fields);
                }
                self.open.push_change(received, decoded.change);
            }
            Err(refusal) => {
                let (partition, offset) = (received.record.partition, received.record.offset);
                tracing::debug!(partition, offset, reason = %refusal.reason, detail = refusal.detail, "a record can never be stored");
                self.open.push_refused(received, refusal);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.open.len() >= self.max_records || self.open.bytes() >= self.max_bytes
    }

    fn lingered(&self) -> bool {
        self.opened.elapsed() >= self.linger
    }

    /// An idle worker does not wait for more; a busy one does, for larger batches are cheaper.
    fn is_due(&self, nothing_waits: bool) -> bool {
        if self.open.is_empty() {
            return false;
        }
        self.is_full() || (nothing_waits && (self.under_way.is_empty() || self.lingered()))
    }

    /// Batches that wait for a trial of the breaker do not count: the row that closes it may be in the next one. What is
    /// taken in is bounded by its memory.
    fn has_room(&self) -> bool {
        let held_up = self.processor.waits.count(Wait::Breaker);
        self.under_way.len().saturating_sub(held_up) < UNDER_WAY
            && !self.open.uids().any(|uid| self.busy.contains(uid))
    }

    fn dispatch(&mut self, permit: OwnedSemaphorePermit) {
        let batch = std::mem::take(&mut self.open);
        let uids: Vec<OrderUid> = batch.uids().cloned().collect();
        self.busy.extend(uids.iter().cloned());
        let processor = Arc::clone(&self.processor);
        let turn = Turn::new(Arc::clone(&self.in_postgres), permit);
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
            // Its offsets were not stored, and nothing would ever store them: end, so that another worker reads the
            // records again. (Release builds abort at the panic itself.)
            Err(error) => {
                tracing::error!(%error, "a batch panicked; ending the process");
                std::process::abort();
            }
        }
    }
}
