//! The memory for unfinished records.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Bytes per unit of memory. Each record takes one extra unit for its own structures.
const UNIT: usize = 1024;

/// A number of bytes that unfinished records share. A single larger record takes all of it.
pub(super) struct Memory {
    units: usize,
    free: Arc<Semaphore>,
    runtime: Handle,
}

impl Memory {
    /// Creates the memory, all of it free.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).max(1);
        Self {
            units,
            free: Arc::new(Semaphore::new(units)),
            runtime: Handle::current(),
        }
    }

    /// Takes memory for a record of `size` bytes, if that much is free.
    pub(super) fn try_take(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.free);
        free.try_acquire_many_owned(self.units_of(size)).ok()
    }

    /// Takes memory for a record of `size` bytes. Blocks for at most `limit`.
    pub(super) fn take(&self, size: usize, limit: Duration) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.free);
        let taken = self
            .runtime
            .block_on(async { timeout(limit, free.acquire_many_owned(self.units_of(size))).await });
        taken.ok()?.ok()
    }

    fn units_of(&self, size: usize) -> u32 {
        (size / UNIT + 1).min(self.units) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_waits_for_its_size_and_a_huge_one_for_all() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let memory = Memory::new(4 * UNIT);
        let small = memory.try_take(2 * UNIT).unwrap();
        assert!(memory.try_take(2 * UNIT).is_none(), "one unit is left");
        assert!(memory.try_take(100 * UNIT).is_none());
        assert!(memory.take(100 * UNIT, Duration::ZERO).is_none());
        drop(small);
        let all = memory.try_take(100 * UNIT).unwrap();
        assert!(memory.try_take(0).is_none());
        drop(all);
        assert!(memory.take(0, Duration::from_secs(60)).is_some());
    }
}
