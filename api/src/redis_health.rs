//! Whether what Redis holds may be served: it is the server that workers write to, it has lost nothing that they know of, and
//! nothing is about to be repaired.

use std::time::Duration;

use shared::{
    cache::{Cache, CacheError, CacheState},
    runtime::health::{Dependency, Impairment},
    storage::{CacheKnowledge, CompleteCache},
};
use tokio::sync::watch;

use crate::lookup::Lookup;

/// A worker repairs what is marked within a second or two. What stays marked for longer is out of every worker's reach, and
/// may be out of date here.
const OVERDUE: Duration = Duration::from_secs(3);

/// Workers record once a second how they see Redis. After this time without a record no worker runs, or none reaches Redis;
/// what changes meanwhile is marked.
const NO_WORKER: Duration = Duration::from_secs(10);

/// An eviction policy that suits a cache of which every entry may be dropped.
const EVICTION_POLICY: &str = "allkeys-lru";

/// Where announcements are to be heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The server processes that answer; none before any has.
    servers: Option<Vec<String>>,
    /// Workers write to another server, and announce there.
    pub misplaced: bool,
}

/// Looks at Redis once a second.
pub struct RedisHealth {
    redis: Cache,
    dependency: Dependency,
    lookup: Lookup,
    link: watch::Sender<Link>,
    /// What Postgres last said about Redis. Without an answer nothing else is known.
    known: CacheKnowledge,
    /// Whether Redis last said that it is under repair.
    bypassed: bool,
    policy_checked: bool,
}

impl RedisHealth {
    /// Nothing is known yet, and nothing is served from Redis.
    pub fn new(
        redis: Cache,
        dependency: Dependency,
        lookup: Lookup,
        link: watch::Sender<Link>,
    ) -> Self {
        Self {
            redis,
            dependency,
            lookup,
            link,
            known: CacheKnowledge::default(),
            bypassed: true,
            policy_checked: false,
        }
    }

    /// One look, after Postgres said what is `known`. In this order: the watermark in Redis is never behind what Postgres has
    /// recorded of it.
    pub async fn look(&mut self, known: Option<CacheKnowledge>) {
        if let Some(known) = known {
            self.known = known;
        }
        let mut state = self.redis.probe().await;
        if state.as_ref().is_ok_and(|state| self.is_misplaced(state)) {
            // The name of the server may lead to another one by now.
            self.redis.renew();
            state = self.redis.probe().await;
        }
        let is_misplaced = state.as_ref().is_ok_and(|state| self.is_misplaced(state));
        if let Ok(state) = &state {
            self.bypassed = state.bypass || is_misplaced;
            self.link.send_if_modified(|link| {
                let now = Link {
                    servers: Some(state.servers.clone()),
                    misplaced: is_misplaced,
                };
                let is_first = link.servers.is_none() && !is_misplaced;
                let is_new = *link != now;
                *link = now;
                is_new && !is_first
            });
        }
        let is_behind = self.known.oldest_repair > OVERDUE;
        self.lookup.use_redis(!is_behind && !self.bypassed);
        self.report(&state, is_misplaced);
        if !self.policy_checked && state.is_ok() {
            self.policy_checked = true;
            check_policy(&self.redis).await;
        }
    }

    fn is_misplaced(&self, state: &CacheState) -> bool {
        let complete = self.known.complete.as_ref();
        complete.is_some_and(|complete| !is_the_one(complete, state))
    }

    fn report(&self, state: &Result<CacheState, CacheError>, is_misplaced: bool) {
        match state {
            Err(error) => self.dependency.set(Err(error)),
            Ok(_) if is_misplaced => self.dependency.set_impaired(
                Impairment::OtherServer,
                "Redis is not the server that workers write to, or has lost what they wrote",
            ),
            Ok(state) => match &state.rejects_writes {
                Some(why) => self.dependency.set_impaired(Impairment::ReadOnly, why),
                None => self.dependency.set(Ok(())),
            },
        }
    }
}

/// Whether `state` is the state of the Redis that a worker last saw `complete`, and of no older content.
///
/// A missing watermark proves nothing: a flush and an eviction remove it too. While no worker runs nothing changes in
/// Postgres, so a new server without a watermark, such as one that was restarted empty, is as good as the last.
fn is_the_one(complete: &CompleteCache, state: &CacheState) -> bool {
    match (state.watermark, complete.servers == state.servers) {
        (None, is_same) => is_same || complete.age > NO_WORKER,
        (Some(watermark), is_same) => is_same && complete.until.0 <= watermark,
    }
}

async fn check_policy(redis: &Cache) {
    // Some hosted services do not tell; then there is nothing to warn about.
    let Ok(Some(policy)) = redis.eviction_policy().await else {
        return;
    };
    if policy != EVICTION_POLICY {
        tracing::warn!(
            policy,
            recommended = EVICTION_POLICY,
            "Redis will refuse writes, or evict other keys, when it is full"
        );
    }
}

#[cfg(test)]
mod tests {
    use shared::storage::DatabaseTime;

    use super::*;

    fn servers(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn redis_is_compared_with_what_a_worker_last_saw() {
        let complete = |age| CompleteCache {
            until: DatabaseTime(100),
            servers: servers(&["a", "b"]),
            age: Duration::from_secs(age),
        };
        let state = |names: &[&str], watermark| CacheState {
            servers: servers(names),
            watermark,
            ..CacheState::default()
        };
        for (is_the_one_expected, age, names, watermark) in [
            (true, 1, &["a", "b"][..], Some(100)),
            // The worker moves it before it records that.
            (true, 1, &["a", "b"], Some(101)),
            // Flushed, or evicted.
            (true, 1, &["a", "b"], None),
            // The same process with the content of an older server.
            (false, 1, &["a", "b"], Some(99)),
            (false, 1, &["a"], Some(101)),
            (false, 1, &["c"], None),
            // Nobody writes: a new server that has no watermark is empty.
            (true, 60, &["c"], None),
            (false, 60, &["c"], Some(50)),
            (true, 60, &["a", "b"], Some(100)),
        ] {
            assert_eq!(
                is_the_one(&complete(age), &state(names, watermark)),
                is_the_one_expected,
                "{age} {names:?} {watermark:?}"
            );
        }
    }
}
