//! Decides whether the api may serve from Redis. Three conditions must hold: Redis is the server
//! that workers write to, it lacks nothing that they wrote, and no repair is overdue or in
//! progress.

use std::time::Duration;

use shared::{
    cache::{Cache, CacheError, CacheState},
    startup::EvictionCheck,
    storage::{CacheKnowledge, CompleteCache},
    telemetry::{Dependency, Impairment},
};
use tokio::sync::watch;

use crate::{events::Events, lookup::Lookup};

/// Maximum age of a pending repair. A worker repairs a marked order within a second or two. An
/// older repair mark means that no worker can reach Redis, so its content may be stale.
const OVERDUE: Duration = Duration::from_secs(3);

/// Maximum age of a worker's record of the state of Redis. Workers write one each second. An older
/// record means that no worker runs or that none reaches Redis. Workers that cannot reach Redis
/// mark what they change.
const NO_WORKER: Duration = Duration::from_secs(10);

/// The Redis from which to receive announcements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The server processes that answer; `None` until the first answer.
    servers: Option<Vec<String>>,
    /// Whether workers write to another server and publish their announcements there.
    pub misplaced: bool,
}

/// The health check of Redis, run once a second.
pub struct RedisHealth {
    redis: Cache,
    dependency: Dependency,
    lookup: Lookup,
    events: Events,
    link: watch::Sender<Link>,
    /// The last answer of Postgres about Redis. It stays valid while Postgres does not answer.
    known: CacheKnowledge,
    /// Whether Redis was under repair, or not the workers' server, at the last check.
    bypassed: bool,
    eviction: EvictionCheck,
}

impl RedisHealth {
    /// A health check without results. The api does not read Redis before the first check.
    pub fn new(
        redis: Cache,
        dependency: Dependency,
        lookup: Lookup,
        events: Events,
        link: watch::Sender<Link>,
    ) -> Self {
        Self {
            redis,
            dependency,
            lookup,
            events,
            link,
            known: CacheKnowledge::default(),
            bypassed: true,
            eviction: EvictionCheck::default(),
        }
    }

    /// Runs one check. `known` is the answer of Postgres about Redis; `None` if Postgres does not
    /// answer.
    ///
    /// The caller reads Postgres first, because the watermark in Redis is never behind the one that
    /// Postgres has recorded.
    pub async fn check(&mut self, known: Option<CacheKnowledge>) {
        if let Some(known) = known {
            self.known = known;
        }
        let mut state = self.redis.probe().await;
        if state.as_ref().is_ok_and(|state| self.is_misplaced(state)) {
            // The host name may resolve to another server by now.
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
        let is_usable = !is_behind && !self.bypassed;
        self.lookup.use_redis(is_usable);
        self.events.set_redis_usable(is_usable);
        self.report(&state, is_misplaced);
        if state.is_ok() {
            self.eviction.run(&self.redis).await;
        }
    }

    fn is_misplaced(&self, state: &CacheState) -> bool {
        let complete = self.known.complete.as_ref();
        complete.is_some_and(|complete| !is_workers_server(complete, state))
    }

    fn report(&self, state: &Result<CacheState, CacheError>, is_misplaced: bool) {
        match state {
            Err(error) => self.dependency.set(Err(error)),
            Ok(_) if is_misplaced => self.dependency.set_impaired(
                Impairment::OtherServer,
                "Redis is not the server that workers write to, or lost their writes",
            ),
            Ok(state) => match &state.rejects_writes {
                Some(why) => self.dependency.set_impaired(Impairment::ReadOnly, why),
                None => self.dependency.set(Ok(())),
            },
        }
    }
}

/// Returns whether `state` is the state of the Redis that a worker last saw `complete`, without
/// older content.
///
/// A missing watermark proves nothing: a flush or an eviction removes it too. While no worker runs,
/// nothing changes in Postgres. A new server without a watermark, such as one that restarted empty,
/// is then as good as the last one.
fn is_workers_server(complete: &CompleteCache, state: &CacheState) -> bool {
    match (state.watermark, complete.servers == state.servers) {
        (None, is_same) => is_same || complete.age > NO_WORKER,
        (Some(watermark), is_same) => is_same && complete.until <= watermark,
    }
}

#[cfg(test)]
mod tests {
    use shared::DatabaseTime;

    use super::*;

    fn servers(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn redis_is_compared_with_the_last_record_of_a_worker() {
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
        for (expected, age, names, watermark) in [
            (true, 1, &["a", "b"][..], Some(100)),
            // The worker moves the watermark before it records that in Postgres.
            (true, 1, &["a", "b"], Some(101)),
            // Redis was flushed, or evicted the watermark.
            (true, 1, &["a", "b"], None),
            // The same process with the content of an older server.
            (false, 1, &["a", "b"], Some(99)),
            (false, 1, &["a"], Some(101)),
            (false, 1, &["c"], None),
            // No worker writes: a new server without a watermark is empty.
            (true, 60, &["c"], None),
            (false, 60, &["c"], Some(50)),
            (true, 60, &["a", "b"], Some(100)),
        ] {
            assert_eq!(
                is_workers_server(&complete(age), &state(names, watermark.map(DatabaseTime))),
                expected,
                "{age} {names:?} {watermark:?}"
            );
        }
    }
}
