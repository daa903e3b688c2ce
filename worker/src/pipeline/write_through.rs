//! Writes orders from Postgres through to Redis.
//!
//! A write that fails is marked for repair in Postgres before the offset of its record is stored.

use std::{collections::HashMap, sync::Arc, time::Instant};

use shared::{
    cache::{Cache, CacheError, WriteOutcome},
    fault::Moment,
    order::{DocumentVersion, OrderUid, Revision},
    storage::{CacheWrite, Postgres},
};

use super::{
    retry::{mark_persistently, read_persistently},
    services::{OrderCache, OrderStore, RepairLog},
    waits::Waits,
};

#[cfg(test)]
mod tests;

/// Minimum attempts of a write that comes too late to create an entry. Each attempt reads the order
/// again; after the last one the order is marked for repair.
const FRESH_ATTEMPTS: u32 = 3;

/// Revisions that Postgres held at a moment, to be written to Redis.
pub struct Fresh {
    /// The revisions.
    pub revisions: Vec<Revision>,
    /// The moment: the revisions were read or committed no earlier.
    pub read_at: Instant,
    /// The note of this write in Postgres. It is deleted when the write is finished.
    pub cache_write: Option<CacheWrite>,
}

/// Orders that Redis may lack.
#[derive(Default)]
pub(crate) struct Unwritten {
    /// The orders.
    pub(crate) uids: Vec<OrderUid>,
    /// The error of the last failed call; none if every write only came too late.
    pub(crate) error: Option<CacheError>,
}

impl Unwritten {
    pub(crate) fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    fn add(&mut self, uid: OrderUid, error: CacheError) {
        self.uids.push(uid);
        self.error = Some(error);
    }

    /// Adds `others`.
    pub(crate) fn extend(&mut self, others: Self) {
        self.uids.extend(others.uids);
        self.error = others.error.or(self.error.take());
    }
}

/// Writes revisions through to Redis.
#[derive(Clone)]
pub struct WriteThrough<C = Cache, S = Postgres> {
    cache: C,
    store: S,
    waits: Arc<Waits>,
}

impl<C: OrderCache, S: OrderStore + RepairLog> WriteThrough<C, S> {
    /// Creates a write-through from `store` to `cache`.
    pub fn new(cache: C, store: S, waits: Arc<Waits>) -> Self {
        Self {
            cache,
            store,
            waits,
        }
    }

    /// Writes `fresh` to Redis; returns when every revision is there or marked for repair.
    pub async fn write(&self, fresh: Fresh) {
        Moment::BeforeRedisWrite.pass();
        let failed = self.try_write(fresh.revisions, fresh.read_at).await;
        if !failed.is_empty() {
            mark_persistently(&self.store, &self.waits, &failed.uids).await;
        }
        if let Some(write) = fresh.cache_write
            && let Err(error) = self.store.finish_cache_writes(&[write]).await
        {
            // The note soon counts as abandoned, and a worker repeats the write.
            tracing::debug!(%error, "cannot delete the note of a finished write to Redis");
        }
    }

    /// Writes `revisions`, read or committed at `read_at`, to Redis; returns the orders that Redis
    /// may lack.
    pub(crate) async fn try_write(&self, revisions: Vec<Revision>, read_at: Instant) -> Unwritten {
        let mut failed = Unwritten::default();
        let mut parts = vec![self.write_once(revisions, read_at, &mut failed).await];
        let mut attempts = 1;
        while !parts.is_empty() {
            let mut late = Vec::new();
            for part in parts {
                if part.len() == 1 && attempts >= FRESH_ATTEMPTS {
                    failed.uids.extend(part);
                    continue;
                }
                // Halve the parts: reading many large orders takes longer than a row counts as
                // fresh.
                for half in part.chunks(part.len().div_ceil(2).max(1)) {
                    let read_at = Instant::now();
                    let revisions = read_persistently(&self.store, &self.waits, half).await;
                    late.push(self.write_once(revisions, read_at, &mut failed).await);
                }
            }
            late.retain(|part| !part.is_empty());
            parts = late;
            attempts += 1;
        }
        failed
    }

    /// Writes `revisions` once; returns those that must be read and written again, and adds those
    /// that failed to `failed`.
    async fn write_once(
        &self,
        revisions: Vec<Revision>,
        read_at: Instant,
        failed: &mut Unwritten,
    ) -> Vec<OrderUid> {
        let results = self.cache.write_batch(&revisions, read_at).await;
        let (mut late, mut newer) = (Vec::new(), HashMap::new());
        for (revision, result) in revisions.into_iter().zip(results) {
            let uid = revision.uid;
            match result {
                Ok(WriteOutcome::Written | WriteOutcome::Unchanged | WriteOutcome::KeptShape) => {}
                Ok(WriteOutcome::KeptNewer(held)) => {
                    newer.insert(uid, held);
                }
                Ok(WriteOutcome::Late) => late.push(uid),
                Err(error) => failed.add(uid, error),
            }
        }
        if !newer.is_empty() {
            late.extend(self.replace_ahead(&newer, failed).await);
        }
        late
    }

    /// Replaces those of the entries `newer` that Postgres, read only now, does not hold: they are
    /// forged, or Postgres has lost data. Otherwise such an entry would keep every update out.
    /// Returns like [`WriteThrough::write_once`].
    async fn replace_ahead(
        &self,
        newer: &HashMap<OrderUid, DocumentVersion>,
        failed: &mut Unwritten,
    ) -> Vec<OrderUid> {
        let uids: Vec<OrderUid> = newer.keys().copied().collect();
        let read_at = Instant::now();
        let revisions = read_persistently(&self.store, &self.waits, &uids).await;
        let mut again = Vec::new();
        for revision in revisions {
            let held = newer[&revision.uid];
            if revision.version >= held.version {
                // Another worker was faster.
                continue;
            }
            match self.cache.replace(&revision, held, read_at).await {
                Ok(WriteOutcome::Late | WriteOutcome::KeptNewer(_)) => again.push(revision.uid),
                Ok(_) => {}
                Err(error) => failed.add(revision.uid, error),
            }
        }
        again
    }
}
