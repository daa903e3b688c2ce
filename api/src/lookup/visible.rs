//! Lookups as a caller may see them. Handlers use only these.

use shared::{
    order::OrderUid,
    storage::{Position, Summary},
};

use super::{Found, Freshness, Lookup, LookupError};
use crate::answer::{Answer, Selection, Text, Unreadable, View, Visible};

/// Bytes of documents after which a batch lets other tasks run. Masking them takes about 1 ms.
const TURN: usize = 512 * 1024;

/// Documents of an export.
#[derive(Debug, Default)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Text>,
    /// The position of the last order if more orders may follow.
    pub next: Option<Position>,
}

impl Lookup {
    /// Returns what `view` shows of the order `uid`.
    ///
    /// # Errors
    /// Returns an error if no tier can answer.
    pub async fn show(
        &self,
        uid: OrderUid,
        freshness: Freshness,
        view: &View,
    ) -> Result<Found<Visible>, LookupError> {
        let Found {
            answer,
            source,
            took,
        } = self.find(uid, freshness).await?;
        match view.show(answer) {
            Ok(answer) => Ok(Found {
                answer,
                source,
                took,
            }),
            Err(unreadable) => Box::pin(self.show_current(uid, view, unreadable)).await,
        }
    }

    /// Shows an order whose document in a cache is `unreadable`, as Postgres holds it.
    async fn show_current(
        &self,
        uid: OrderUid,
        view: &View,
        unreadable: Unreadable,
    ) -> Result<Found<Visible>, LookupError> {
        tracing::warn!(order_uid = %uid, error = %unreadable, "cached document skipped");
        let found = self.find(uid, Freshness::Current).await?;
        Ok(Found {
            answer: view.show(found.answer).map_err(unreadable_row)?,
            source: found.source,
            took: found.took,
        })
    }

    /// Returns what `view` shows of each of `uids`, in their order.
    ///
    /// # Errors
    /// Returns an error if no tier can answer for one of them.
    pub async fn show_many(
        &self,
        uids: &[OrderUid],
        view: &View,
    ) -> Result<Vec<Visible>, LookupError> {
        let answers = self.find_many(uids).await?;
        let (mut shown, mut bytes) = (Vec::with_capacity(uids.len()), 0);
        for (uid, answer) in uids.iter().zip(answers) {
            if let Answer::Order(document) = &answer {
                bytes += document.size();
            }
            shown.push(match view.show(answer) {
                Ok(answer) => answer,
                Err(unreadable) => {
                    let current = Box::pin(self.show_current(*uid, view, unreadable));
                    current.await?.answer
                }
            });
            if bytes > TURN {
                bytes = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(shown)
    }

    /// Returns a page of the orders that a caller may see, from the read replica if there is one.
    ///
    /// # Errors
    /// Returns an error if the database cannot answer.
    pub async fn show_list(
        &self,
        selection: &Selection,
        limit: u32,
    ) -> Result<Vec<Summary>, LookupError> {
        match selection.filter() {
            Some(filter) => self.list(filter, limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// Returns a page of an export like [`Lookup::show_list`], when the export has its turn.
    ///
    /// # Errors
    /// Returns an error if the database cannot answer.
    pub async fn export_summaries(
        &self,
        selection: &Selection,
        limit: u32,
    ) -> Result<Vec<Summary>, LookupError> {
        match selection.filter() {
            Some(filter) => self.list_for_export(filter, limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// Returns a page of whole orders for an export, when the export has its turn: at most `limit`
    /// orders, and no more once they have `bytes` bytes.
    ///
    /// # Errors
    /// Returns an error if the database cannot answer.
    pub async fn export_documents(
        &self,
        selection: &Selection,
        limit: u32,
        bytes: usize,
    ) -> Result<Page, LookupError> {
        let Some(filter) = selection.filter() else {
            return Ok(Page::default());
        };
        let page = self.documents_for_export(filter, limit, bytes).await?;
        let documents = page.documents.into_iter();
        let shown = documents.filter_map(|document| selection.show(document).transpose());
        Ok(Page {
            documents: shown.collect::<Result<_, _>>().map_err(unreadable_row)?,
            next: page.next,
        })
    }
}

/// Reports a document that was built from a row, and yet is not one of an order.
fn unreadable_row(error: Unreadable) -> LookupError {
    tracing::error!(%error, "document from Postgres rejected");
    LookupError::Unavailable
}
