//! From Postgres to Redis. What cannot be written is marked for repair, durably, before its offset is stored.

use std::{sync::Arc, time::Instant};

use shared::{
    cache::{Cache, WriteOutcome},
    fault::Moment,
    order::{OrderUid, Revision},
    storage::Postgres,
};

use super::{
    persist::{mark_persistently, read_persistently},
    waits::Waits,
};

/// A write that came too late to create an entry is read again and tried again, so often; then it is marked for repair.
const FRESH_ATTEMPTS: u32 = 3;

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

    /// Brings `revisions`, read or committed at `read_at`, to Redis; returns when each is there or marked for repair.
    pub async fn write(&self, revisions: Vec<Revision>, read_at: Instant) {
        Moment::BeforeRedisWrite.pass();
        let failed = self.try_write(revisions, read_at).await;
        if !failed.is_empty() {
            mark_persistently(&self.postgres, &self.waits, &failed).await;
        }
    }

    /// As [`WriteThrough::write`], but hands back the orders that Redis does not have for certain.
    pub(crate) async fn try_write(
        &self,
        mut revisions: Vec<Revision>,
        mut read_at: Instant,
    ) -> Vec<OrderUid> {
        let mut failed = Vec::new();
        for attempt in 1.. {
            let results = self.cache.write_batch(&revisions, read_at).await;
            let mut late = Vec::new();
            for (revision, result) in revisions.into_iter().zip(results) {
                match result {
                    Ok(
                        WriteOutcome::Written | WriteOutcome::Unchanged | WriteOutcome::KeptNewer,
                    ) => {}
                    Ok(WriteOutcome::Late) => late.push(revision.uid),
                    Err(_) => failed.push(revision.uid),
                }
            }
            if late.is_empty() {
                break;
            }
            if attempt == FRESH_ATTEMPTS {
                failed.append(&mut late);
                break;
            }
            read_at = Instant::now();
            revisions = read_persistently(&self.postgres, &self.waits, &late).await;
        }
        failed
    }
}
