//! Ids of new rows, taken before the rows are written.

use std::ops::Range;

use parking_lot::Mutex;
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
    pub(in crate::storage) async fn take(
        &self,
        connection: &mut PgConnection,
        count: usize,
    ) -> Result<Vec<i64>, sqlx::Error> {
        let mut ids = Vec::with_capacity(count);
        loop {
            self.take_from_blocks(count, &mut ids);
            if ids.len() == count {
                return Ok(ids);
            }
            let (first, length): (i64, i64) = sqlx::query_as(NEXT_BLOCK)
                .fetch_one(&mut *connection)
                .await?;
            self.0.lock().push(first..first.saturating_add(length));
        }
    }

    /// Adds ids of the blocks to `ids` until there are `count`, or no block is left.
    fn take_from_blocks(&self, count: usize, ids: &mut Vec<i64>) {
        let mut blocks = self.0.lock();
        while ids.len() < count
            && let Some(block) = blocks.last_mut()
        {
            ids.extend(block.take(count - ids.len()));
            if block.is_empty() {
                blocks.pop();
            }
        }
    }

    /// Drops the ids that are left of the blocks.
    pub(in crate::storage) fn forget(&self) {
        self.0.lock().clear();
    }
}
