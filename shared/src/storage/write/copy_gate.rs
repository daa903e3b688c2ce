//! Whether `COPY` is worth a try.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// So many batches are upserted at once before `COPY` is tried again: the schema may have changed back.
const SKIPPED: u32 = 1000;

/// Closed for a while after Postgres rejected a `COPY` and accepted the same rows by an upsert.
#[derive(Default)]
pub(in crate::storage) struct CopyGate {
    left: AtomicU32,
    reported: AtomicBool,
}

impl CopyGate {
    /// Whether to copy the next batch; counts it if not.
    pub(super) fn is_open(&self) -> bool {
        let skip = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Relaxed, Relaxed, skip).is_err()
    }

    /// Closes it. Returns whether that is the first time.
    pub(super) fn close(&self) -> bool {
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
