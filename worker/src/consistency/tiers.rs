//! Reads Postgres and Redis to compare them. Changes neither.

use std::collections::HashMap;

use shared::{
    cache::{Cache, CacheError, Held},
    order::OrderUid,
    storage::{Inspected, Postgres, StorageError},
};

use super::{
    confirm::{Look, Pending, has_kept_content, is_complete},
    difference::{Finding, compare},
};
use crate::pipeline::step_size::StepSize;

/// The two tiers.
#[derive(Clone)]
pub struct Tiers {
    /// Holds the orders.
    pub postgres: Postgres,
    /// Caches them.
    pub cache: Cache,
}

/// A tier that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// Redis does not answer, or rejects a command.
    #[error("Redis: {0}")]
    Cache(#[from] CacheError),
    /// Postgres does not answer, or rejects a statement.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Tiers {
    /// Compares the orders `uids` once. The findings are in the order of `uids`. A difference may
    /// be a change that Redis does not have yet. Fits `size` to the orders.
    ///
    /// # Errors
    /// When a tier does not answer.
    pub async fn compare(
        &self,
        uids: &[OrderUid],
        size: &mut StepSize,
    ) -> Result<Vec<Finding>, TierError> {
        let rows = self.postgres.inspect(uids).await?;
        size.adapt(rows.iter().map(|row| &row.revision));
        let held = self.cache.inspect(uids).await?;
        Ok(findings(uids, rows, &held))
    }

    /// Looks at the orders `uids` as [`confirm`](super::confirm) requires. The looks are in the
    /// order of `uids`.
    ///
    /// # Errors
    /// When a tier does not answer.
    pub async fn look(
        &self,
        uids: &[OrderUid],
        size: &mut StepSize,
    ) -> Result<Vec<Look>, TierError> {
        let recorded = self.postgres.cache_knowledge().await?.complete;
        let before = self.cache.state().await?;
        let rows = self.postgres.inspect(uids).await?;
        size.adapt(rows.iter().map(|row| &row.revision));
        let unfinished = self.postgres.unfinished_in_cache(uids).await?;
        let held = self.cache.inspect(uids).await?;
        let after = self.cache.state().await?;
        let is_complete =
            is_complete(recorded.as_ref(), &before) && has_kept_content(&before, &after);
        let pending = |uid: &OrderUid| match unfinished.contains(uid) {
            true => Some(Pending::Order),
            false if !is_complete => Some(Pending::Redis),
            false => None,
        };
        Ok(findings(uids, rows, &held)
            .into_iter()
            .map(|finding| Look {
                pending: pending(&finding.uid),
                finding,
            })
            .collect())
    }
}

/// Compares each of `uids` with its row, if there is one, and its entry.
fn findings(uids: &[OrderUid], rows: Vec<Inspected>, held: &[Held]) -> Vec<Finding> {
    let rows: HashMap<OrderUid, Inspected> = rows
        .into_iter()
        .map(|row| (row.revision.uid, row))
        .collect();
    uids.iter()
        .zip(held)
        .map(|(uid, held)| compare(*uid, rows.get(uid), held))
        .collect()
}
