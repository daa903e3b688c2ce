//! Calls that are retried until they succeed.
//!
//! A batch that Postgres does not store is not retried here but in [`persist`](super::persist),
//! because each attempt may write other rows. Its delays come from [`Retry`] too.

use std::time::Duration;

use shared::{
    order::{OrderUid, Rejection, Revision},
    runtime::backoff::Backoff,
    storage::{Class, StorageError},
};

use super::{
    services::{DeadLetterSink, OrderStore, RepairLog},
    waits::{BatchWaits, Wait, Waiting, Waits},
};
use crate::kafka::Record;

/// The failed attempts of one call. Its wait is visible from the first failure until the value is
/// dropped, including during attempts.
pub(super) struct Retry<'w> {
    call: &'static str,
    backoff: Backoff,
    waiting: Option<Waiting<'w>>,
}

impl<'w> Retry<'w> {
    pub(super) fn new(call: &'static str) -> Self {
        Self {
            call,
            backoff: Backoff::default(),
            waiting: None,
        }
    }

    /// Notes that the call succeeded for some of its values. The wait goes on if any are left.
    pub(super) fn succeeded(&mut self, is_any_left: bool) {
        self.backoff = Backoff::default();
        if !is_any_left {
            self.waiting = None;
        }
    }

    /// Notes that a part of a batch failed, `alone` if others pass; returns how long to wait.
    pub(super) fn part_failed(
        &mut self,
        waits: &'w BatchWaits<'w>,
        error: &StorageError,
        alone: bool,
    ) -> Duration {
        let wait = wait_of(error);
        // The new wait begins before the old one ends, so that there is no gap.
        self.waiting = Some(match wait {
            Wait::Postgres if !alone && !error.is_in_row() => waits.begin(wait),
            _ => waits.begin_alone(wait),
        });
        self.failed(wait, error)
    }

    /// Notes that the call failed, and waits before the next attempt.
    pub(super) async fn wait_out(&mut self, waits: &'w Waits, error: &StorageError) {
        let wait = wait_of(error);
        self.waiting = Some(waits.begin(wait));
        tokio::time::sleep(self.failed(wait, error)).await;
    }

    fn failed(&mut self, wait: Wait, error: &StorageError) -> Duration {
        if self.backoff.is_to_log() {
            let (call, attempts) = (self.call, self.backoff.attempts());
            match wait {
                Wait::Deployment => tracing::error!(
                    call,
                    %error,
                    attempts,
                    runbook = "WorkerStopped",
                    "Postgres rejects our schema, our credentials or a row; retrying"
                ),
                _ => tracing::warn!(call, %error, attempts, "waiting for Postgres"),
            }
        }
        self.backoff.next_delay()
    }
}

fn wait_of(error: &StorageError) -> Wait {
    match error.class() {
        Class::Transient | Class::StalePlan | Class::Rival => Wait::Postgres,
        Class::Locked => Wait::Lock,
        Class::Deployment | Class::Record | Class::Unknown => Wait::Deployment,
    }
}

/// Reads orders; retries until that succeeds.
pub(super) async fn read_persistently(
    store: &impl OrderStore,
    waits: &Waits,
    uids: &[OrderUid],
) -> Vec<Revision> {
    let mut retry = Retry::new("read_many");
    loop {
        match store.read_many(uids).await {
            Ok(revisions) => return revisions,
            Err(error) => retry.wait_out(waits, &error).await,
        }
    }
}

/// Marks orders for repair; retries until that succeeds.
pub(super) async fn mark_persistently(log: &impl RepairLog, waits: &Waits, uids: &[OrderUid]) {
    let mut retry = Retry::new("mark_for_repair");
    while let Err(error) = log.mark_for_repair(uids).await {
        retry.wait_out(waits, &error).await;
    }
}

/// Sends one record to the dead letter topic; retries until the topic has it.
pub(super) async fn dead_letter_persistently(
    sink: &impl DeadLetterSink,
    waits: &BatchWaits<'_>,
    record: &Record,
    rejection: &Rejection,
) {
    let mut backoff = Backoff::default();
    // Held from the first failure to the last attempt, so that the wait is visible during attempts
    // too.
    let mut waiting = None;
    while let Err(error) = sink.send(record, rejection).await {
        waiting.get_or_insert_with(|| waits.begin_alone(Wait::DeadLetterTopic));
        if backoff.is_to_log() {
            tracing::warn!(
                %error,
                partition = record.partition,
                offset = record.offset,
                attempts = backoff.attempts(),
                "waiting for the dead letter topic"
            );
        }
        backoff.wait().await;
    }
}
