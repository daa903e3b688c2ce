//! Which dead letters were replayed. Postgres knows it (`dead_letter_replays`).

use anyhow::Context;
use shared::{
    config::{self, Database},
    order::OrderUid,
    runtime::output,
    storage::{Class, LetterPlace, Postgres, Replayed, Role, StorageError},
};
use tokio::runtime::Handle;

use super::{row::Row, terminal::letters};

/// How often to try to store marks. An attempt takes up to `DATABASE_TIMEOUT`, or the lock timeout.
const ATTEMPTS: u32 = 5;

fn is_transient(error: &StorageError) -> bool {
    matches!(error.class(), Class::Transient | Class::Locked)
}

/// Access to the marks of one dead letter topic, from a blocking thread of the runtime.
pub(super) struct Marks {
    postgres: Postgres,
    topic: String,
    runtime: Handle,
    is_broken: bool,
}

impl Marks {
    /// # Errors
    /// When a variable of `DATABASE_*` is invalid.
    pub(super) fn new(topic: &str) -> anyhow::Result<Self> {
        let database: Database = config::load("DATABASE_")?;
        Ok(Self {
            postgres: Postgres::new(&database.url, &database, Role::Worker)?,
            topic: topic.to_owned(),
            runtime: Handle::current(),
            is_broken: false,
        })
    }

    pub(super) fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Adds to each row when it was replayed. Without an answer of Postgres the rows stay as they
    /// are, and the first failure prints a warning.
    pub(super) fn add_to(&mut self, rows: &mut [Row]) {
        if self.is_broken {
            return;
        }
        let places: Vec<LetterPlace> = rows.iter().map(|row| row.place).collect();
        match self.of(&places) {
            Ok(replayed) => {
                for (row, replayed) in rows.iter_mut().zip(replayed) {
                    row.set_replayed(replayed);
                }
            }
            Err(error) => {
                self.is_broken = true;
                let problem = output::describe(&error);
                output::warn(format_args!("{problem}; the list does not show it"));
            }
        }
    }

    /// Returns for each place when the dead letter was last replayed.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub(super) fn of(&self, places: &[LetterPlace]) -> anyhow::Result<Vec<Option<Replayed>>> {
        self.wait(self.postgres.replayed(&self.topic, places))
            .context("cannot read which dead letters were replayed (DATABASE_URL)")
    }

    /// Records that the dead letters at `places` were replayed now. Retries, because they are sent
    /// already: without the marks, the next replay would send them again.
    ///
    /// # Errors
    /// When the marks may not be stored.
    pub(super) fn set(&self, places: &[LetterPlace], as_new: bool) -> anyhow::Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let mut attempts = 1;
        let marked = loop {
            match self.wait(self.postgres.mark_replayed(&self.topic, places, as_new)) {
                Err(error) if attempts < ATTEMPTS && is_transient(&error) => attempts += 1,
                marked => break marked,
            }
        };
        marked.with_context(|| {
            let count = letters(places.len() as u64);
            format!(
                "sent {count} back, but cannot record it (DATABASE_URL); a later replay would \
                 send the same again"
            )
        })
    }

    /// Forgets the dead letters that Kafka has deleted: those below the first offset of each
    /// partition.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub(super) fn forget_below(&self, firsts: &[(i32, i64)]) -> anyhow::Result<()> {
        self.wait(self.postgres.forget_replays(&self.topic, firsts))
            .context("cannot forget the replays of deleted dead letters (DATABASE_URL)")
    }

    /// Returns which of the orders are erased.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub(super) fn erased(&self, uids: &[OrderUid]) -> anyhow::Result<Vec<OrderUid>> {
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        let revisions = self
            .wait(self.postgres.read_many(uids))
            .context("cannot read which orders are erased (DATABASE_URL)")?;
        let erased = revisions.iter().filter(|it| it.document.is_none());
        Ok(erased.map(|revision| revision.uid).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn marks_that_cannot_be_stored_are_an_error_that_says_what_was_sent() {
        // No server listens there.
        let database = Database {
            url: "postgres://127.0.0.1:1/x".to_owned(),
            timeout: Some(Duration::from_millis(20)),
            ..Database::default()
        };
        let marks = Marks {
            postgres: Postgres::new(&database.url, &database, Role::Worker).unwrap(),
            topic: "t".to_owned(),
            runtime: Handle::current(),
            is_broken: false,
        };
        let place = LetterPlace {
            partition: 0,
            offset: 1,
            timestamp_ms: 2,
        };
        let set = tokio::task::spawn_blocking(move || {
            marks.set(&[], false).unwrap();
            marks.set(&[place, place], false).unwrap_err()
        });
        let text = output::describe(&set.await.unwrap());
        assert!(
            text.starts_with("sent 2 dead letters back, but cannot record it (DATABASE_URL)"),
            "{text}"
        );
    }
}
