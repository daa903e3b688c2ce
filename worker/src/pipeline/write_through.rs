//! From Postgres to Redis. What cannot be written is marked for repair, durably, before its offset is stored.

use std::{sync::Arc, time::Instant};

use shared::{
    cache::{Cache, CacheError, WriteOutcome},
    fault::Moment,
    order::{OrderUid, Revision},
    storage::{CacheWrite, Postgres},
};

use super::{
    retry::{mark_persistently, read_persistently},
    waits::Waits,
};

/// A write that came too late to create an entry is read again and tried again, at least so often; then it is marked for
/// repair.
const FRESH_ATTEMPTS: u32 = 3;

/// What Postgres held at a moment, on its way to Redis.
pub struct Fresh {
    /// What it held.
    pub revisions: Vec<Revision>,
    /// The moment: they were read or committed no earlier.
    pub read_at: Instant,
    /// To be finished when they are there.
    pub cache_write: Option<CacheWrite>,
}

/// Orders that Redis does not have for certain.
#[derive(Default)]
pub(crate) struct Unwritten {
    /// Which.
    pub(crate) uids: Vec<OrderUid>,
    /// What the last of the calls that failed said; none where all of them only came too late.
    pub(crate) error: Option<CacheError>,
}

impl Unwritten {
    pub(crate) fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// Adds `others`.
    pub(crate) fn extend(&mut self, others: Self) {
        self.uids.extend(others.uids);
        self.error = others.error.or(self.error.take());
    }
}

/// Writes revisions through.
#[derive(Clone)]
pub struct WriteThrough {
    cache: Cache,
    postgres: Postgres,
    waits: Arc<Waits>,
}

impl WriteThrough {
    /// From `postgres` to `cache`.
    pub fn new(cache: Cache, postgres: Postgres, waits: Arc<Waits>) -> Self {
        Self {
            cache,
            postgres,
            waits,
        }
    }

    /// Brings what is fresh to Redis; returns when all of it is there or marked for repair.
    pub async fn write(&self, fresh: Fresh) {
        Moment::BeforeRedisWrite.pass();
        let failed = self.try_write(fresh.revisions, fresh.read_at).await;
        if !failed.is_empty() {
            mark_persistently(&self.postgres, &self.waits, &failed.uids).await;
        }
        if let Some(write) = fresh.cache_write
            && let Err(error) = self.postgres.finish_cache_writes(&[write]).await
        {
            // Before long it counts as abandoned, and is done once more.
            tracing::debug!(%error, "a finished write to Redis stays noted as under way");
        }
    }

    /// Brings `revisions`, read or committed at `read_at`, to Redis; hands back the orders that Redis does not have for certain.
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
                // Smaller and smaller parts: reading many large orders takes longer than what is read counts as fresh.
                for half in part.chunks(part.len().div_ceil(2).max(1)) {
                    let read_at = Instant::now();
                    let revisions = read_persistently(&self.postgres, &self.waits, half).await;
                    late.push(self.write_once(revisions, read_at, &mut failed).await);
                }
            }
            late.retain(|part| !part.is_empty());
            parts = late;
            attempts += 1;
        }
        failed
    }

    /// Tries to write `revisions`; returns those that came too late, and adds to `failed` what could not be written.
    async fn write_once(
        &self,
        revisions: Vec<Revision>,
        read_at: Instant,
        failed: &mut Unwritten,
    ) -> Vec<OrderUid> {
        let results = self.cache.write_batch(&revisions, read_at).await;
        let mut late = Vec::new();
        for (revision, result) in revisions.into_iter().zip(results) {
            match result {
                Ok(WriteOutcome::Written | WriteOutcome::Unchanged | WriteOutcome::KeptNewer) => {}
                Ok(WriteOutcome::Late) => late.push(revision.uid),
                Err(error) => {
                    failed.uids.push(revision.uid);
                    failed.error = Some(error);
                }
            }
        }
        late
    }
}
