//! The right of a batch to use Postgres.

use std::sync::Arc;

use shared::storage::BATCHES_AT_ONCE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits how many batches use Postgres at once.
#[derive(Clone)]
pub(super) struct Turns {
    turns: Arc<Semaphore>,
    /// Limits batches whose rows fail while others pass to one at a time. Each of their attempts
    /// may wait for a lock until its deadline; batches whose rows pass need a turn meanwhile.
    repeats: Arc<Semaphore>,
}

/// The right to make one attempt. A batch gives it back while it waits. Otherwise two batches that
/// Postgres rejects would keep out a batch that it accepts.
pub(super) struct Turn {
    turns: Turns,
    permit: Option<OwnedSemaphorePermit>,
    repeat: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(BATCHES_AT_ONCE as usize)),
            repeats: Arc::new(Semaphore::new(1)),
        }
    }

    /// Waits for a turn; returns none if the semaphore is closed, which never happens.
    pub(super) async fn next(self) -> Option<Turn> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        Some(Turn {
            turns: self,
            permit: Some(permit),
            repeat: None,
        })
    }
}

impl Turn {
    pub(super) fn give_back(&mut self) {
        (self.permit, self.repeat) = (None, None);
    }

    /// Waits for a turn, unless the batch already holds one.
    pub(super) async fn take(&mut self) {
        self.repeat = None;
        self.take_permit().await;
    }

    /// Waits for a turn as [`Turn::take`] does, to retry rows that fail while others pass.
    pub(super) async fn take_to_repeat(&mut self) {
        if self.repeat.is_none() {
            self.permit = None;
            self.repeat = acquire(&self.turns.repeats).await;
        }
        self.take_permit().await;
    }

    async fn take_permit(&mut self) {
        if self.permit.is_none() {
            self.permit = acquire(&self.turns.turns).await;
        }
    }
}

/// Acquires a permit. Returns none if the semaphore is closed, which never happens; the batch would
/// then only exceed the limit by one.
async fn acquire(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(semaphore).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_part_yields_its_turn() {
        let turns = Turns::new();
        let mut repeating = turns.clone().next().await.unwrap();
        repeating.take_to_repeat().await;
        let mut waiting = turns.clone().next().await.unwrap();
        let waiting = tokio::spawn(async move { waiting.take_to_repeat().await });
        // The waiting batch holds no turn.
        for _ in 0..10 {
            let healthy = turns.clone().next().await.unwrap();
            assert_eq!(turns.turns.available_permits(), 0);
            drop(healthy);
        }
        assert!(!waiting.is_finished());
        repeating.give_back();
        waiting.await.unwrap();
    }
}
