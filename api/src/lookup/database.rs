//! Postgres behind a bounded queue. A full queue rejects a request at once, so that a slow Postgres
//! never piles requests up.

use std::{future::Future, time::Instant};

use shared::{
    storage::{Class, Postgres, StorageError},
    telemetry::{Dependency, OutageLog},
};
use tokio::{sync::Semaphore, time::timeout};

/// Places in the queue per concurrent call.
const QUEUE_PER_CALL: usize = 16;

/// Reason why Postgres gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The queue is full, or the wait exceeded the deadline of one call.
    #[error("too many requests wait for Postgres")]
    Busy,
    /// Postgres did not answer the last health check.
    #[error("Postgres does not answer")]
    Down,
    /// The call failed.
    #[error(transparent)]
    Failed(#[from] StorageError),
}

/// Postgres for requests, behind the queue.
pub(super) struct Database {
    postgres: Postgres,
    health: Dependency,
    /// Maximum number of concurrent calls.
    maximum: usize,
    calls: Semaphore,
    queue: Semaphore,
    rejections: OutageLog,
}

impl Database {
    /// Creates the queue. While `health` is down, calls are rejected at once.
    pub(super) fn new(postgres: Postgres, health: Dependency) -> Self {
        // One connection is reserved for the health check, which must not starve under load.
        let calls = postgres.connections().saturating_sub(1).max(1) as usize;
        Self {
            postgres,
            health,
            maximum: calls,
            calls: Semaphore::new(calls),
            queue: Semaphore::new(calls * QUEUE_PER_CALL),
            rejections: OutageLog::default(),
        }
    }

    /// Runs `call` with retries, as [`retry_on_new_connection`] does.
    ///
    /// # Errors
    /// Returns [`DatabaseError::Down`] or [`DatabaseError::Busy`] without a call, or the error of
    /// the last attempt.
    pub(super) async fn run<T, F>(&self, call: impl Fn(Postgres) -> F) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        if self.health.state() == "down" {
            return Err(DatabaseError::Down);
        }
        let started = Instant::now();
        let _running = self.admit().await?;
        let answer = retry_on_new_connection(&self.postgres, started, call).await;
        Ok(answer.inspect_err(|error| self.report(error))?)
    }

    /// Logs a failed read. The health check already logs an outage, so that is only debug here.
    /// Other errors need an operator, and are logged at most once a minute: every request may fail.
    fn report(&self, error: &StorageError) {
        match error.class() {
            Class::Transient | Class::StalePlan | Class::Locked => {
                tracing::debug!(%error, "Postgres read failed");
            }
            Class::Deployment | Class::Record | Class::Rival | Class::Unknown => {
                if self.rejections.failed() {
                    tracing::error!(%error, "Postgres rejects a read");
                }
            }
        }
    }

    /// Maximum number of concurrent calls.
    pub(super) fn calls(&self) -> usize {
        self.maximum
    }

    async fn admit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, DatabaseError> {
        if let Ok(permit) = self.calls.try_acquire() {
            return Ok(permit);
        }
        let _waiting = self.queue.try_acquire().map_err(|_| DatabaseError::Busy)?;
        match timeout(self.postgres.timeout(), self.calls.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(DatabaseError::Busy),
        }
    }
}

/// Runs `call` and retries errors of a stale connection.
///
/// A connection that broke while idle (Postgres restarted), or whose statements are older than the
/// schema, fails at once and only once. So `call` is repeated at most once per connection, and only
/// within the deadline of one call, counted from `started`.
///
/// # Errors
/// Returns the error of the last attempt.
pub(crate) async fn retry_on_new_connection<T, F>(
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
