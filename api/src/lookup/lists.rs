//! Pages of lists and exports, each with its share of the connections.

use shared::storage::{Documents, ListFilter, Postgres, StorageError, Summary};

use super::{Lookup, LookupError, database::DatabaseError};
use crate::trace;

impl Lookup {
    /// Returns a page of orders, from the read replica if there is one.
    ///
    /// # Errors
    /// Returns an error if the database cannot answer.
    pub(super) async fn list(
        &self,
        filter: &ListFilter,
        limit: u32,
    ) -> Result<Vec<Summary>, LookupError> {
        let list = |postgres: Postgres| async move { postgres.list(filter, limit).await };
        self.run_list(list).await
    }

    /// Runs `call` in one of the places for lists.
    async fn run_list<T, F>(&self, call: impl Fn(Postgres) -> F) -> Result<T, LookupError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        let inner = &self.inner;
        let listed = inner.lists.run_in(&inner.list_places, call);
        match trace::in_span("postgres", listed).await {
            Err(DatabaseError::Failed(error)) if error.is_timeout() => Err(LookupError::SlowList),
            listed => Ok(listed?),
        }
    }

    /// Returns a page of an export like [`Lookup::list`], when the export has its turn.
    ///
    /// # Errors
    /// Returns an error if the database cannot answer.
    pub(super) async fn list_for_export(
        &self,
        filter: &ListFilter,
        limit: u32,
    ) -> Result<Vec<Summary>, LookupError> {
        // The semaphore is never closed.
        let _turn = self.inner.exports.acquire().await;
        self.list(filter, limit).await
    }

    /// Returns a page of whole orders for an export, when the export has its turn: at most `limit`
    /// orders, and no more once they have `bytes` bytes.
    ///
    /// # Errors
    /// Returns an error if the database cannot answer.
    pub(super) async fn documents_for_export(
        &self,
        filter: &ListFilter,
        limit: u32,
        bytes: usize,
    ) -> Result<Documents, LookupError> {
        let _turn = self.inner.exports.acquire().await;
        let list =
            |postgres: Postgres| async move { postgres.list_documents(filter, limit, bytes).await };
        self.run_list(list).await
    }
}
