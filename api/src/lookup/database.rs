//! Postgres behind bounded queues. A full queue rejects a request at once, so that a slow Postgres
//! never piles requests up.
//!
//! Calls that a client can make expensive have a share: lists, and reads past the caches. However
//! many of them wait, the others keep the rest of the connections. A call with a share waits first
//! for its share, in a queue of its own, and then for a connection.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use shared::{
    storage::{Class, Postgres, StorageError},
    telemetry::{Dependency, OutageLog},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// Places in the queue per concurrent call.
const QUEUE_PER_CALL: usize = 16;

/// A share may use one in so many connections, but at least one. Two shares leave one in three to
/// the lookups that may use all of them.
const CALLS_PER_SHARE: usize = 3;

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
    calls: Places,
    rejections: OutageLog,
}

/// Places for concurrent calls, and the queue for them.
pub(super) struct Places {
    maximum: usize,
    calls: Semaphore,
    queue: Semaphore,
}

impl Places {
    /// Creates places for `maximum` calls.
    fn new(maximum: usize) -> Self {
        Self {
            maximum,
            calls: Semaphore::new(maximum),
            queue: Semaphore::new(maximum * QUEUE_PER_CALL),
        }
    }

    /// Maximum number of concurrent calls.
    pub(super) fn maximum(&self) -> usize {
        self.maximum
    }

    async fn admit(&self, limit: Duration) -> Result<SemaphorePermit<'_>, DatabaseError> {
        if let Ok(permit) = self.calls.try_acquire() {
            return Ok(permit);
        }
        let _waiting = self.queue.try_acquire().map_err(|_| DatabaseError::Busy)?;
        match timeout(limit, self.calls.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(DatabaseError::Busy),
        }
    }
}

impl Database {
    /// Creates the queue. While `health` is down, calls are rejected at once.
    pub(super) fn new(postgres: Postgres, health: Dependency) -> Self {
        // One connection is reserved for the health check, which must not starve under load.
        let calls = postgres.connections().saturating_sub(1).max(1) as usize;
        Self {
            postgres,
            health,
            calls: Places::new(calls),
            rejections: OutageLog::default(),
        }
    }

    /// Creates places for calls that get a share of the connections.
    pub(super) fn share(&self) -> Places {
        Places::new((self.calls.maximum / CALLS_PER_SHARE).max(1))
    }

    /// Creates places for calls that may use all connections.
    pub(super) fn all(&self) -> Places {
        Places::new(self.calls.maximum)
    }

    /// Runs `call` like [`Database::run`] in one of the places of `share`.
    ///
    /// # Errors
    /// Returns [`DatabaseError::Busy`] also if the share has no place in time.
    pub(super) async fn run_in<T, F>(
        &self,
        share: &Places,
        call: impl Fn(Postgres) -> F,
    ) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        if self.health.state() == "down" {
            return Err(DatabaseError::Down);
        }
        let _place = share.admit(self.postgres.timeout()).await?;
        self.run(call).await
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
        let _running = self.calls.admit(self.postgres.timeout()).await?;
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
