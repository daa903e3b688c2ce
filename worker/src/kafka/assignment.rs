//! The assigned partitions, shared between the poll thread and the pipeline.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};

use shared::fault::Moment;

use super::{
    ledger::{Ledger, Ticket},
    topic_identity::TopicId,
};

/// Stores frontiers for the next commit: the consumer with any context, or a test.
pub(super) trait FrontierStore: Send + Sync {
    fn store(&self, assignment: &Assignment, frontiers: &[(i32, i64)]);
}

impl<C: ConsumerContext> FrontierStore for BaseConsumer<C> {
    fn store(&self, assignment: &Assignment, frontiers: &[(i32, i64)]) {
        assignment.store(self, frontiers);
    }
}

/// The progress of an assigned partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) partition: i32,
    /// The next offset to read after a restart. None before the first record is finished.
    pub(super) frontier: Option<i64>,
    /// Number of received records that are not finished.
    pub(super) outstanding: usize,
}

/// The ledger, and the consumer that stores its frontiers.
pub struct Assignment {
    topic: Arc<str>,
    ledger: Mutex<Ledger>,
    /// The id of the topic that the offsets of each partition belong to, if known.
    ids: Mutex<HashMap<i32, TopicId>>,
    finished: Condvar,
    /// Weak, because the context of the consumer holds this struct: a strong reference would form a
    /// cycle. None before [`Assignment::attach`].
    store: Mutex<Option<Weak<dyn FrontierStore>>>,
}

impl Assignment {
    pub(super) fn new(topic: Arc<str>) -> Self {
        Self {
            topic,
            ledger: Mutex::default(),
            ids: Mutex::default(),
            finished: Condvar::new(),
            store: Mutex::new(None),
        }
    }

    /// Creates an assignment of `partition` without a consumer.
    #[cfg(test)]
    pub(crate) fn detached(partition: i32) -> Self {
        let assignment = Self::new("orders".into());
        assignment.assign(partition, None);
        assignment
    }

    /// Returns how many received records of `partition` are not finished.
    #[cfg(test)]
    pub(crate) fn outstanding(&self, partition: i32) -> usize {
        self.ledger.lock().outstanding(partition)
    }

    /// Stores frontiers in `store` from now on.
    pub(super) fn attach<S: FrontierStore + 'static>(&self, store: &Arc<S>) {
        let store: Weak<S> = Arc::downgrade(store);
        *self.store.lock() = Some(store);
    }

    /// Begins an assignment of `partition`. Its offsets belong to the topic with this `id`.
    pub(super) fn assign(&self, partition: i32, id: Option<TopicId>) {
        let mut ledger = self.ledger.lock();
        ledger.assign(partition);
        let mut ids = self.ids.lock();
        match id {
            Some(id) => ids.insert(partition, id),
            None => ids.remove(&partition),
        };
    }

    /// Ends the assignment of `partitions`. Unfinished records of these no longer store an offset.
    pub(super) fn revoke(&self, partitions: &[i32]) {
        let mut ledger = self.ledger.lock();
        partitions
            .iter()
            .for_each(|partition| ledger.revoke(*partition));
        self.finished.notify_all();
    }

    /// The number of partition assignments so far.
    pub(super) fn assignments(&self) -> u64 {
        self.ledger.lock().epochs()
    }

    pub(crate) fn epoch(&self, partition: i32) -> Option<u64> {
        self.ledger.lock().epoch(partition)
    }

    pub(crate) fn receive(&self, partition: i32, epoch: u64, offset: i64) -> Option<Ticket> {
        self.ledger.lock().receive(partition, epoch, offset)
    }

    /// Blocks until every received record of `partitions` is finished. Returns false after `limit`.
    pub(super) fn wait_until_drained(&self, partitions: &[i32], limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut ledger = self.ledger.lock();
        while partitions
            .iter()
            .any(|partition| ledger.outstanding(*partition) > 0)
        {
            if self.finished.wait_until(&mut ledger, deadline).timed_out() {
                return partitions
                    .iter()
                    .all(|partition| ledger.outstanding(*partition) == 0);
            }
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
        let mut ledger = self.ledger.lock();
        let frontiers = ledger.finish(tickets);
        // After a revocation no frontier moves, so this thread holds no second reference when the
        // poll thread drops the consumer.
        if !frontiers.is_empty()
            && let Some(store) = self.store.lock().as_ref().and_then(Weak::upgrade)
        {
            store.store(self, &frontiers);
        }
        drop(ledger);
        self.finished.notify_all();
        !frontiers.is_empty()
    }

    /// Stores offsets for the next commit. Logs an error and does not retry.
    pub(super) fn store<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        frontiers: &[(i32, i64)],
    ) {
        // Keep the scope small: dropping the consumer hangs while such a list is alive.
        let offsets = match self.offsets(frontiers) {
            Ok(offsets) => offsets,
            Err(error) => {
                tracing::error!(?frontiers, %error, "offsets not stored");
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
            tracing::warn!(partition, %error, "offset not stored; records will be read again");
        }
    }

    /// Returns offsets with the id of their topic as metadata.
    pub(super) fn offsets(
        &self,
        frontiers: &[(i32, i64)],
    ) -> Result<TopicPartitionList, KafkaError> {
        let ids = self.ids.lock();
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

    /// Returns the progress of each assigned partition.
    pub(super) fn progress(&self) -> Vec<Progress> {
        let ledger = self.ledger.lock();
        let progress = ledger.partitions().map(|partition| Progress {
            partition,
            frontier: ledger.frontier(partition),
            outstanding: ledger.outstanding(partition),
        });
        progress.collect()
    }

    /// Returns the assigned partitions.
    pub(super) fn partitions(&self) -> Vec<i32> {
        self.ledger.lock().partitions().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Collects the frontiers that the assignment stores.
    #[derive(Default)]
    struct Stored(Mutex<Vec<(i32, i64)>>);

    impl FrontierStore for Stored {
        fn store(&self, _: &Assignment, frontiers: &[(i32, i64)]) {
            self.0.lock().extend(frontiers);
        }
    }

    fn attached() -> (Arc<Assignment>, Arc<Stored>) {
        let assignment = Arc::new(Assignment::new("orders".into()));
        let stored = Arc::new(Stored::default());
        assignment.attach(&stored);
        (assignment, stored)
    }

    /// Receives records at these offsets of partition 0.
    fn receive(assignment: &Assignment, offsets: &[i64]) -> Vec<Ticket> {
        let epoch = assignment.epoch(0).unwrap();
        let receive = |offset: &i64| assignment.receive(0, epoch, *offset).unwrap();
        offsets.iter().map(receive).collect()
    }

    #[test]
    fn finishing_stores_the_frontier_and_only_when_it_moves() {
        let (assignment, stored) = attached();
        assignment.assign(0, None);
        let tickets = receive(&assignment, &[7, 8, 9]);
        assert!(!assignment.finish(&tickets[1..]));
        assert!(assignment.finish(&tickets[..1]));
        assert_eq!(*stored.0.lock(), [(0, 10)]);
    }

    #[test]
    fn a_revoked_partition_stores_nothing_also_after_it_is_assigned_again() {
        let (assignment, stored) = attached();
        assignment.assign(0, None);
        let tickets = receive(&assignment, &[7, 8]);
        assignment.revoke(&[0]);
        assert!(!assignment.finish(&tickets[..1]));
        assignment.assign(0, None);
        assert!(!assignment.finish(&tickets));
        assert!(stored.0.lock().is_empty());
    }

    #[test]
    fn a_consumer_that_was_dropped_stores_nothing() {
        let (assignment, stored) = attached();
        assignment.assign(0, None);
        let tickets = receive(&assignment, &[7]);
        drop(stored);
        assert!(
            assignment.finish(&tickets),
            "the frontier moves nevertheless"
        );
    }

    #[test]
    fn draining_ends_when_the_last_record_is_finished_and_at_its_limit() {
        let (assignment, _stored) = attached();
        assignment.assign(0, None);
        let tickets = receive(&assignment, &[7, 8]);
        assert!(!assignment.wait_until_drained(&[0], Duration::ZERO));
        let minute = Duration::from_secs(60);
        thread::scope(|scope| {
            let drained = scope.spawn(|| assignment.wait_until_drained(&[0], minute));
            tickets.iter().for_each(|ticket| {
                assignment.finish(&[*ticket]);
            });
            assert!(drained.join().unwrap());
        });
        receive(&assignment, &[9]);
        thread::scope(|scope| {
            let drained = scope.spawn(|| assignment.wait_until_drained(&[0], minute));
            assignment.revoke(&[0]);
            assert!(drained.join().unwrap(), "nothing left to wait for");
        });
    }

    #[test]
    fn stored_offsets_carry_the_topic_id_of_their_partition() {
        let (assignment, _stored) = attached();
        let id = TopicId::new("dGhpcyBpcyBhbiBpZC4uLg").unwrap();
        assignment.assign(0, Some(id.clone()));
        assignment.assign(1, None);
        let offsets = assignment.offsets(&[(0, 5), (1, 6)]).unwrap();
        let metadata = |partition| {
            let element = offsets.find_partition("orders", partition).unwrap();
            TopicId::from_metadata(element.metadata())
        };
        assert_eq!((metadata(0), metadata(1)), (Some(id), None));
    }
}
