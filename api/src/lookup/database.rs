//! Postgres behind a bounded queue: what does not fit is refused at once, so that a slow database never piles requests up.

use std::{future::Future, time::Instant};

use shared::{
    runtime::health::Dependency,
    storage::{Class, Postgres, StorageError},
};
use tokio::{sync::Semaphore, time::timeout};

/// Requests that may wait, for each that may run.
const QUEUE_PER_CALL: usize = 16;

/// Why Postgres gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Too many wait already, or the wait was too long.
    #[error("too many requests wait for Postgres")]
    Busy,
    /// It did not answer the last health check.
    #[error("Postgres does not answer")]
    Down,
    /// It was asked and failed.
    #[error(transparent)]
    Failed(#[from] StorageError),
}

/// Postgres for requests.
pub(super) struct Database {
    postgres: Postgres,
    health: Dependency,
    calls: Semaphore,
    queue: Semaphore,
}

impl Database {
    /// While `health` says that Postgres is down, nobody waits for it.
    pub(super) fn new(postgres: Postgres, health: Dependency) -> Self {
        // One connection is left for the health check, which must not starve when requests fill the others.
        let calls = postgres.connections().saturating_sub(1).max(1) as usize;
        Self {
            postgres,
            health,
            calls: Semaphore::new(calls),
            queue: Semaphore::new(calls * QUEUE_PER_CALL),
        }
    }

    /// Runs `call`, as [`insist`] does.
    ///
    /// # Errors
    /// When Postgres does not answer in time.
    pub(super) async fn run<T, F>(&self, call: impl Fn(Postgres) -> F) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        if self.health.state() == "down" {
            return Err(DatabaseError::Down);
        }
        let started = Instant::now();
        let _running = self.admit().await?;
        let answer = insist(&self.postgres, started, call).await;
        Ok(answer.inspect_err(report)?)
    }

    async fn admit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, DatabaseError> {
        if let Ok(permit) = self.calls.try_acquire() {
            return Ok(permit);
        }
        let _waiting = self.queue.try_acquire().map_err(|_| DatabaseError::Busy)?;
        match timeout(self.postgres.timeout(), self.calls.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(DatabaseError::Busy),
        }
    }
}

/// Runs `call`. A connection that broke while it was idle (Postgres was restarted) or whose statements are older than the
/// schema shows itself at once and only once, so the call is repeated, at most once for each connection and, counted from
/// `started`, within the deadline of one call.
///
/// # Errors
/// The last one.
pub(crate) async fn insist<T, F>(
    postgres: &Postgres,
    started: Instant,
    call: impl Fn(Postgres) -> F,
) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    let mut repeats = postgres.connections();
    loop {
        match call(postgres.clone()).await {
            Err(error)
                if repeats > 0 && started.elapsed() < postgres.timeout() && may_pass(&error) =>
            {
                repeats -= 1;
            }
            answer => return answer,
        }
    }
}

fn may_pass(error: &StorageError) -> bool {
    match error.class() {
        Class::Transient | Class::StalePlan => !matches!(error, StorageError::Deadline(_)),
        Class::Locked | Class::Deployment | Class::Record | Class::Rival | Class::Unknown => false,
    }
}

/// An outage is told once, by the health check; anything else is somebody's to mend.
fn report(error: &StorageError) {
    match error.class() {
        Class::Transient | Class::StalePlan | Class::Locked => {
            tracing::debug!(%error, "a read from Postgres failed")
        }
        Class::Deployment | Class::Record | Class::Rival | Class::Unknown => {
            tracing::error!(%error, "a read from Postgres failed, and will again");
        }
    }
}
