//! The assigned partitions, shared between the poll thread and the pipeline.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use shared::fault::Moment;

use super::{
    context::Context,
    ledger::{Ledger, Ticket},
    topic_identity::TopicId,
};

/// The ledger, and the consumer that stores its frontiers.
pub struct Assignment {
    topic: Arc<str>,
    ledger: Mutex<Ledger>,
    /// The id of the topic that the offsets of each partition belong to, if known.
    ids: Mutex<HashMap<i32, TopicId>>,
    finished: Condvar,
    /// Weak, because the context of the consumer holds this struct: a strong reference would form a
    /// cycle.
    consumer: Mutex<Weak<BaseConsumer<Context>>>,
}

impl Assignment {
    pub(super) fn new(topic: Arc<str>) -> Self {
        Self {
            topic,
            ledger: Mutex::default(),
            ids: Mutex::default(),
            finished: Condvar::new(),
            consumer: Mutex::new(Weak::new()),
        }
    }

    pub(super) fn attach(&self, consumer: &Arc<BaseConsumer<Context>>) {
        *lock(&self.consumer) = Arc::downgrade(consumer);
    }

    /// Begins an assignment of `partition`. Its offsets belong to the topic with this `id`.
    pub(super) fn assign(&self, partition: i32, id: Option<TopicId>) {
        let mut ledger = lock(&self.ledger);
        ledger.assign(partition);
        let mut ids = lock(&self.ids);
        match id {
            Some(id) => ids.insert(partition, id),
            None => ids.remove(&partition),
        };
    }

    /// Ends the assignment of `partitions`. Unfinished records of these no longer store an offset.
    pub(super) fn revoke(&self, partitions: &[i32]) {
        let mut ledger = lock(&self.ledger);
        partitions
            .iter()
            .for_each(|partition| ledger.revoke(*partition));
        self.finished.notify_all();
    }

    /// The number of partition assignments so far.
    pub(super) fn assignments(&self) -> u64 {
        lock(&self.ledger).epochs()
    }

    pub(super) fn epoch(&self, partition: i32) -> Option<u64> {
        lock(&self.ledger).epoch(partition)
    }

    pub(super) fn receive(&self, partition: i32, epoch: u64, offset: i64) -> Option<Ticket> {
        lock(&self.ledger).receive(partition, epoch, offset)
    }

    /// Blocks until every received record of `partitions` is finished. Returns false after `limit`.
    pub(super) fn wait_until_drained(&self, partitions: &[i32], limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut ledger = lock(&self.ledger);
        while partitions
            .iter()
            .any(|partition| ledger.outstanding(*partition) > 0)
        {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            ledger = self
                .finished
                .wait_timeout(ledger, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Marks records as finished and stores the frontiers that moved. Returns whether any frontier
    /// moved.
    ///
    /// Holds the lock that the rebalance hooks take too, so that it never stores an offset for a
    /// partition that was revoked meanwhile.
    pub fn finish(&self, tickets: &[Ticket]) -> bool {
        Moment::BeforeOffsetStored.pass();
        let mut ledger = lock(&self.ledger);
        let frontiers = ledger.finish(tickets);
        // After a revocation no frontier moves, so this thread holds no second reference when the
        // poll thread drops the consumer.
        if !frontiers.is_empty()
            && let Some(consumer) = lock(&self.consumer).upgrade()
        {
            self.store(&consumer, &frontiers);
        }
        drop(ledger);
        self.finished.notify_all();
        !frontiers.is_empty()
    }

    /// Stores offsets for the next commit. Logs an error and does not retry.
    pub(super) fn store(&self, consumer: &BaseConsumer<Context>, frontiers: &[(i32, i64)]) {
        // Keep the scope small: dropping the consumer hangs while such a list is alive.
        let offsets = match self.offsets(frontiers) {
            Ok(offsets) => offsets,
            Err(error) => {
                tracing::error!(?frontiers, %error, "offsets cannot be stored");
                return;
            }
        };
        let stored = consumer.store_offsets(&offsets);
        // The call returns success if at least one offset was stored.
        let refused = offsets
            .elements()
            .iter()
            .find_map(|element| Some((element.partition(), element.error().err()?)));
        if let Some((partition, error)) = refused.or_else(|| Some((-1, stored.err()?))) {
            tracing::warn!(partition, %error, "an offset was not stored; its records will be read again");
        }
    }

    /// Returns offsets with the id of their topic as metadata.
    pub(super) fn offsets(
        &self,
        frontiers: &[(i32, i64)],
    ) -> Result<TopicPartitionList, KafkaError> {
        let ids = lock(&self.ids);
        let mut offsets = TopicPartitionList::with_capacity(frontiers.len());
        for (partition, frontier) in frontiers {
            let mut element = offsets.add_partition(&self.topic, *partition);
            element.set_offset(Offset::Offset(*frontier))?;
            if let Some(id) = ids.get(partition) {
                element.set_metadata(id.to_metadata());
            }
        }
        Ok(offsets)
    }

    /// For each assigned partition: its frontier (none before the first record is finished), and
    /// the number of received records that are not finished.
    pub(super) fn progress(&self) -> Vec<(i32, Option<i64>, usize)> {
        let ledger = lock(&self.ledger);
        ledger
            .partitions()
            .map(|partition| {
                (
                    partition,
                    ledger.frontier(partition),
                    ledger.outstanding(partition),
                )
            })
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
