//! Finds many orders: first in the local cache. Those that are not there are read in steps of 20:
//! with one pipeline to Redis, and the rest of the step with one statement to Postgres.
//!
//! Not single-flight: two batches are rarely the same.

use std::{collections::HashMap, time::Instant};

use futures_util::future::join_all;
use shared::{
    order::{OrderUid, Revision},
    storage::Postgres,
};

use super::{Lookup, LookupError, local_result, redis_answer};
use crate::{answer::Answer, local_cache::LoadToken, metrics::RedisResult, trace};

/// Maximum number of orders in a pipeline or a statement. A hundred orders with a thousand items
/// each have 22 MB: more than one call can read within its deadline on a busy machine.
const STEP: usize = 20;

/// Maximum number of pipelines in flight; further ones wait for their turn. All reads share one
/// connection to Redis. So with many large pipelines in front of it, a lookup would miss its
/// deadline, and the breaker would open.
pub(super) const PIPELINES: usize = 2;

/// An order that the local cache does not have.
struct Load {
    /// Its place in the batch.
    place: usize,
    uid: OrderUid,
    token: LoadToken,
}

impl Lookup {
    /// Returns the answer for each of `uids`, in their order.
    ///
    /// # Errors
    /// Returns an error if no tier can answer for one of them.
    pub(super) async fn find_many(&self, uids: &[OrderUid]) -> Result<Vec<Answer>, LookupError> {
        let mut answers = self.look_locally_for_many(uids);
        let places = (0..uids.len()).filter(|place| answers[*place].is_none());
        let places: Vec<usize> = places.collect();
        for step in places.chunks(STEP) {
            let loads = step.iter().map(|&place| Load {
                place,
                uid: uids[place],
                token: self.inner.local.begin(&uids[place]),
            });
            self.find_elsewhere_for_many(loads.collect(), &mut answers)
                .await?;
        }
        // Postgres answers for every uid, if only that it is unknown.
        let answers: Option<Vec<Answer>> = answers.into_iter().collect();
        answers.ok_or(LookupError::Unavailable)
    }

    async fn find_elsewhere_for_many(
        &self,
        mut loads: Vec<Load>,
        answers: &mut [Option<Answer>],
    ) -> Result<(), LookupError> {
        let found = trace::in_span("redis", self.ask_redis_for_many(&loads)).await;
        self.keep(found, &mut loads, answers);
        if !loads.is_empty() {
            let found = trace::in_span("postgres", self.load_many(&loads)).await?;
            self.keep(found, &mut loads, answers);
        }
        Ok(())
    }

    fn look_locally_for_many(&self, uids: &[OrderUid]) -> Vec<Option<Answer>> {
        let now = Instant::now();
        let answers: Vec<_> = trace::in_span_sync("local cache", || {
            let local = &self.inner.local;
            uids.iter().map(|uid| local.get(uid, now)).collect()
        });
        for answer in &answers {
            self.inner.metrics.local(local_result(answer.as_ref()));
        }
        answers
    }

    /// Moves the answers that were found to their places and to the local cache. The other loads
    /// remain.
    fn keep(
        &self,
        found: Vec<Option<Answer>>,
        loads: &mut Vec<Load>,
        answers: &mut [Option<Answer>],
    ) {
        let mut found = found.into_iter();
        loads.retain(|load| {
            let answer = found.next().flatten();
            if let Some(answer) = &answer {
                let local = &self.inner.local;
                local.insert(load.uid, answer.clone(), load.token);
            }
            let remains = answer.is_none();
            answers[load.place] = answer;
            remains
        });
    }

    async fn ask_redis_for_many(&self, loads: &[Load]) -> Vec<Option<Answer>> {
        let entries: Vec<_> = match self.usable_redis() {
            Some(redis) => {
                let uids: Vec<_> = loads.iter().map(|load| load.uid).collect();
                // The semaphore is never closed.
                let _turn = self.inner.pipelines.acquire().await;
                let entries = redis.get_many(&uids).await;
                entries.into_iter().map(redis_answer).collect()
            }
            None => loads.iter().map(|_| (RedisResult::Bypass, None)).collect(),
        };
        let answers = entries.into_iter().map(|(result, answer)| {
            self.inner.metrics.redis(result);
            answer
        });
        answers.collect()
    }

    async fn load_many(&self, loads: &[Load]) -> Result<Vec<Option<Answer>>, LookupError> {
        let read_at = Instant::now();
        let uids: &[OrderUid] = &loads.iter().map(|load| load.uid).collect::<Vec<_>>();
        let read = |postgres: Postgres| async move { postgres.read_many(uids).await };
        let rows = self.inner.database.run(read).await?;
        let by_uid: HashMap<_, _> = rows.iter().map(|row| (row.uid, row)).collect();
        let answers = uids
            .iter()
            .map(|uid| Some(Answer::from_row(by_uid.get(uid).copied())))
            .collect();
        self.fill_redis_with_many(rows, read_at);
        Ok(answers)
    }

    /// Writes the rows to Redis in the background. They count as one write: one connection sends
    /// them together.
    fn fill_redis_with_many(&self, rows: Vec<Revision>, read_at: Instant) {
        let (Some(redis), false) = (self.inner.redis.clone(), rows.is_empty()) else {
            return;
        };
        let Ok(permit) = self.inner.fills.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let results = join_all(rows.iter().map(|row| redis.fill(row, read_at))).await;
            let errors = results.iter().filter_map(|result| result.as_ref().err());
            let failed = errors.clone().count();
            if let Some(error) = errors.into_iter().next() {
                tracing::debug!(%error, failed, "Redis fill failed");
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::{Freshness, tests::lookup};

    #[tokio::test]
    async fn a_pipeline_waits_for_its_turn() {
        let lookup = lookup();
        lookup.use_redis(true);
        let turns = lookup.inner.pipelines.acquire_many(PIPELINES as u32).await;
        let uid = OrderUid::parse("u").unwrap();
        let batch = tokio::spawn({
            let lookup = lookup.clone();
            async move { lookup.find_many(&[uid]).await }
        });
        // Without the limit, the batch would be done by then: it makes the same calls.
        for _ in 0..3 {
            let alone = lookup.find(uid, Freshness::Cached).await;
            assert_eq!(alone.unwrap_err(), LookupError::Unavailable);
        }
        assert!(!batch.is_finished());
        drop(turns);
        assert_eq!(batch.await.unwrap().unwrap_err(), LookupError::Unavailable);
    }
}
