//! Gathers records into batches and keeps enough of them under way.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use shared::{
    order::{ForeignFields, OrderUid, Refusal},
    storage::Postgres,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    batch::{Batch, Processor},
    breaker::Breaker,
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

/// Batches under way at once, those on their way to Redis included.
const UNDER_WAY: usize = 4;

/// How often it is checked whether held records are still from the future.
const RECHECK: Duration = Duration::from_secs(1);

/// Batches under way at once, those that are held up included: each of them makes its attempts. Those that wait for the
/// breaker make none, and do not count.
const UNDER_WAY_AT_MOST: usize = 64;

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
    /// Stops when every record is from the future.
    pub future: FutureGuard,
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
            future: self.future,
            held: VecDeque::new(),
            recheck_at: Instant::now(),
            open: Batch::default(),
            opened: Instant::now(),
            turns: Turns::new(),
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
    future: FutureGuard,
    /// Records from the future that the guard keeps back; at most as many as may be under way.
    held: VecDeque<Received>,
    recheck_at: Instant,
    open: Batch,
    opened: Instant,
    turns: Turns,
    /// Each hands back the orders that it wrote.
    under_way: JoinSet<Vec<OrderUid>>,
    /// The orders of the batches under way. While none is held up there is never more than one batch per order, or two
    /// connections would wait for each other's rows.
    busy: HashSet<OrderUid>,
    processor: Arc<Processor>,
}

impl Batcher {
    async fn run(mut self, mut intake: Intake) {
        let waits = Arc::clone(&self.processor.waits);
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
                () = sleep_until(self.opened + self.linger), if !self.open.is_empty() && !self.lingered() => {}
            }
        }
    }

    /// Decodes a record into the open batch, unless it is held.
    fn take(&mut self, received: Received) {
        let decoded = self.decode(&received);
        if self.future.admits(&decoded) {
            self.push(received, decoded);
        } else {
            self.held.push_back(received);
        }
    }

    fn decode(&self, received: &Received) -> Result<Decoded, Refusal> {
        decode_record(&received.record, self.fields, self.future.clock.now())
    }

    fn push(&mut self, received: Received, decoded: Result<Decoded, Refusal>) {
        if self.open.is_empty() {
            self.opened = Instant::now();
        }
        match decoded {
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

    /// Opens the guard if the oldest held record is not from the future any more: a clock was corrected.
    fn recheck(&mut self) {
        self.recheck_at = Instant::now() + RECHECK;
        if let Some(oldest) = self.held.front() {
            let decoded = self.decode(oldest);
            self.future.admits(&decoded);
        }
    }

    /// Takes held records in once the guard is open.
    fn release_held(&mut self) {
        while !self.future.is_closed()
            && !self.is_full()
            && let Some(received) = self.held.pop_front()
        {
            let decoded = self.decode(&received);
            self.push(received, decoded);
        }
    }

    /// Whether nothing is left to do. Held records are not finished, so they are read again.
    fn is_idle(&self) -> bool {
        let releases = !self.held.is_empty() && !self.future.is_closed();
        self.open.is_empty() && self.under_way.is_empty() && !releases
    }

    /// Held records that are released go first.
    fn may_take(&self) -> bool {
        !self.is_full() && (self.held.is_empty() || self.future.is_closed())
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

    /// Batches that are held up, by rows of their own or by the dead letter topic, take no room: the rows behind them may
    /// pass, and only then is a row that fails known to be at fault. What is taken in is bounded by its memory.
    fn has_room(&self) -> bool {
        let (waits, under_way) = (&self.processor.waits, self.under_way.len());
        let (held_up, for_breaker) = (waits.held_up(), waits.count(Wait::Breaker));
        if under_way.saturating_sub(held_up) >= UNDER_WAY
            || under_way.saturating_sub(for_breaker) >= UNDER_WAY_AT_MOST
        {
            return false;
        }
        // The orders of a batch that is held up must not hold up this one: two batches that write an order at once may wait
        // for its row, and its version decides.
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
            // Its offsets were not stored, and nothing would ever store them: end, so that another worker reads the
            // records again. (Release builds abort at the panic itself.)
            Err(error) => {
                tracing::error!(%error, "a batch panicked; ending the process");
                std::process::abort();
            }
        }
    }
}
