//! Ids of new rows, taken before the rows are written.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use sqlx::PgConnection;

/// Takes the next block of ids. The sequence advances by whole blocks; only the sequence defines
/// their length.
const NEXT_BLOCK: &str = "\
    SELECT nextval(seqrelid::regclass), seqincrement FROM pg_sequence \
    WHERE seqrelid = pg_get_serial_sequence('orders', 'id')::regclass";

/// The ids that are left of the blocks that this process took from the sequence of `orders.id`.
/// Each id is used once or never.
#[derive(Default)]
pub(in crate::storage) struct IdBlocks(Mutex<Vec<Range<i64>>>);

impl IdBlocks {
    /// Returns `count` ids, each for one row.
    pub(super) async fn take(
        &self,
        connection: &mut PgConnection,
        count: usize,
    ) -> Result<Vec<i64>, sqlx::Error> {
        let mut ids = Vec::with_capacity(count);
        loop {
            self.with(|blocks| {
                while ids.len() < count
                    && let Some(block) = blocks.last_mut()
                {
                    ids.extend(block.take(count - ids.len()));
                    if block.is_empty() {
                        blocks.pop();
                    }
                }
            });
            if ids.len() == count {
                return Ok(ids);
            }
            let (first, length): (i64, i64) = sqlx::query_as(NEXT_BLOCK)
                .fetch_one(&mut *connection)
                .await?;
            self.with(|blocks| blocks.push(first..first.saturating_add(length)));
        }
    }

    /// Drops the ids that are left of the blocks.
    pub(super) fn forget(&self) {
        self.with(Vec::clear);
    }

    fn with<T>(&self, action: impl FnOnce(&mut Vec<Range<i64>>) -> T) -> T {
        // The ranges are valid at any moment, so a panic elsewhere does no harm.
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
