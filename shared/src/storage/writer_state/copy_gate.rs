//! Decides whether the next batch tries `COPY`.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Batches that are upserted without a `COPY` before the next try. The schema may have changed back
/// by then.
const SKIPPED: u32 = 1000;

/// A gate that closes for a while when Postgres rejects a `COPY` but accepts an upsert of the same
/// rows.
#[derive(Default)]
pub(in crate::storage) struct CopyGate {
    left: AtomicU32,
    reported: AtomicBool,
}

impl CopyGate {
    /// Returns whether to copy the next batch. If not, counts the batch as skipped.
    pub(in crate::storage) fn is_open(&self) -> bool {
        let skip = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Relaxed, Relaxed, skip).is_err()
    }

    /// Closes the gate. Returns whether this is the first time.
    pub(in crate::storage) fn close(&self) -> bool {
        self.left.store(SKIPPED, Relaxed);
        !self.reported.swap(true, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_again_after_a_while_and_reports_once() {
        let gate = CopyGate::default();
        assert!(gate.is_open());
        assert!(gate.close());
        for _ in 0..SKIPPED {
            assert!(!gate.is_open());
        }
        assert!(gate.is_open());
        assert!(!gate.close());
    }
}
