//! What the pipeline needs of Postgres, Redis and Kafka.
//!
//! The traits are resolved at compile time, so they cost nothing. Unit tests implement them by
//! scripts (`doubles`).

use std::{fmt::Display, future::Future, time::Instant};

use shared::{
    cache::{Cache, CacheError, WriteOutcome},
    order::{DocumentVersion, OrderUid, Rejection, Revision},
    storage::{Applied, CacheWrite, ChangeSet, Postgres, StorageError},
};

use crate::kafka::{
    Record,
    dead_letter::{DeadLetters, SendError},
};

/// Stores orders.
pub trait OrderStore: Send + Sync + 'static {
    /// As [`Postgres::apply`].
    fn apply(
        &self,
        changes: &ChangeSet,
    ) -> impl Future<Output = Result<Applied, StorageError>> + Send;

    /// As [`Postgres::read_many`].
    fn read_many(
        &self,
        uids: &[OrderUid],
    ) -> impl Future<Output = Result<Vec<Revision>, StorageError>> + Send;

    /// As [`Postgres::end_frozen_sessions`].
    fn end_frozen_sessions(&self) -> impl Future<Output = Result<i64, StorageError>> + Send;
}

/// Remembers the orders that Redis may lack.
pub trait RepairLog: Send + Sync + 'static {
    /// As [`Postgres::mark_for_repair`].
    fn mark_for_repair(
        &self,
        uids: &[OrderUid],
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// As [`Postgres::finish_cache_writes`].
    fn finish_cache_writes(
        &self,
        writes: &[CacheWrite],
    ) -> impl Future<Output = Result<(), StorageError>> + Send;
}

/// Caches orders.
pub trait OrderCache: Send + Sync + 'static {
    /// As [`Cache::write_batch`].
    fn write_batch(
        &self,
        revisions: &[Revision],
        read_at: Instant,
    ) -> impl Future<Output = Vec<Result<WriteOutcome, CacheError>>> + Send;

    /// As [`Cache::replace`].
    fn replace(
        &self,
        revision: &Revision,
        ahead: DocumentVersion,
        read_at: Instant,
    ) -> impl Future<Output = Result<WriteOutcome, CacheError>> + Send;
}

/// Takes records that can never be stored.
pub trait DeadLetterSink: Send + Sync + 'static {
    /// Why a record was not taken.
    type Error: Display + Send;

    /// As [`DeadLetters::send`].
    fn send(
        &self,
        record: &Record,
        rejection: &Rejection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl OrderStore for Postgres {
    async fn apply(&self, changes: &ChangeSet) -> Result<Applied, StorageError> {
        Self::apply(self, changes).await
    }

    async fn read_many(&self, uids: &[OrderUid]) -> Result<Vec<Revision>, StorageError> {
        Self::read_many(self, uids).await
    }

    async fn end_frozen_sessions(&self) -> Result<i64, StorageError> {
        Self::end_frozen_sessions(self).await
    }
}

impl RepairLog for Postgres {
    async fn mark_for_repair(&self, uids: &[OrderUid]) -> Result<(), StorageError> {
        Self::mark_for_repair(self, uids).await
    }

    async fn finish_cache_writes(&self, writes: &[CacheWrite]) -> Result<(), StorageError> {
        Self::finish_cache_writes(self, writes).await
    }
}

impl OrderCache for Cache {
    async fn write_batch(
        &self,
        revisions: &[Revision],
        read_at: Instant,
    ) -> Vec<Result<WriteOutcome, CacheError>> {
        Self::write_batch(self, revisions, read_at).await
    }

    async fn replace(
        &self,
        revision: &Revision,
        ahead: DocumentVersion,
        read_at: Instant,
    ) -> Result<WriteOutcome, CacheError> {
        Self::replace(self, revision, ahead, read_at).await
    }
}

impl DeadLetterSink for DeadLetters {
    type Error = SendError;

    async fn send(&self, record: &Record, rejection: &Rejection) -> Result<(), Self::Error> {
        Self::send(self, record, rejection).await
    }
}
