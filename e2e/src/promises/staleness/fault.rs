//! Faults of Redis and of the links to it.

use std::ops::Range;

use super::hot::Hot;
use crate::readers::now_us;

/// How long after the return of Redis the api may return older versions than Postgres holds, in
/// microseconds.
const RETURN_US: i64 = 20_000_000;

/// Memory limit and eviction policy with which Redis starts.
const SETTINGS: [[&str; 2]; 2] = [["maxmemory", "256mb"], ["maxmemory-policy", "allkeys-lru"]];

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedisFault {
    /// No api replica reaches Redis.
    ApiLinkCut,
    /// No worker reaches Redis, but the api does.
    WorkerLinksCut,
    /// One of two workers does not reach Redis.
    OneWorkerLinkCut,
    /// The api's subscriptions to announcements are disconnected.
    SubscriptionsKilled,
    /// Redis does not answer.
    Frozen,
    /// Redis rejects writes, as a replica does.
    ReadOnly,
    /// Redis rejects writes because its memory is full.
    Full,
    /// Redis is emptied.
    Flushed,
    /// Entries are deleted all the time.
    Deleted,
    /// Redis restarts with older content.
    Restored,
}

impl RedisFault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ApiLinkCut => "api link cut",
            Self::WorkerLinksCut => "worker links cut",
            Self::OneWorkerLinkCut => "one worker's link cut",
            Self::SubscriptionsKilled => "invalidation killed",
            Self::Frozen => "frozen",
            Self::ReadOnly => "read-only",
            Self::Full => "full",
            Self::Flushed => "flushed",
            Self::Deleted => "entries deleted",
            Self::Restored => "restored",
        }
    }

    /// Whether Redis itself, and thus the api, may return older versions for the promised time.
    pub(super) fn may_go_back(self) -> bool {
        matches!(
            self,
            Self::Frozen | Self::ReadOnly | Self::Full | Self::Restored
        )
    }

    pub(super) fn begin(self, hot: &mut Hot) {
        match self {
            Self::ApiLinkCut => hot.api_link.cut(),
            Self::WorkerLinksCut => hot.worker_links.iter().for_each(|link| link.cut()),
            Self::OneWorkerLinkCut => hot.worker_links[0].cut(),
            Self::Frozen => hot.stack.redis.freeze(),
            // Nothing listens on the discard port, so this replica never receives data.
            Self::ReadOnly => hot.stack.redis.command(&["REPLICAOF", "127.0.0.1", "9"]),
            Self::Full => configure(
                hot,
                &[["maxmemory-policy", "noeviction"], ["maxmemory", "1"]],
            ),
            Self::Restored => hot.stack.redis.save(),
            Self::SubscriptionsKilled | Self::Flushed | Self::Deleted => self.again(hot),
        }
    }

    /// Repeats the part of the fault that recurs.
    pub(super) fn again(self, hot: &mut Hot) {
        match self {
            Self::SubscriptionsKilled => hot
                .stack
                .redis
                .command(&["CLIENT", "KILL", "TYPE", "pubsub"]),
            Self::Flushed => hot.stack.redis.command(&["FLUSHALL"]),
            Self::Deleted => hot.uids.iter().for_each(|uid| hot.stack.redis.evict(uid)),
            _ => {}
        }
    }

    /// Ends the fault. Returns the period in which the api may return versions that Redis missed,
    /// in microseconds since 1970. The period is empty if the api never may.
    pub(super) fn end(self, hot: &mut Hot) -> Range<i64> {
        // Measured before the end of the fault, because Redis answers before this function returns.
        let begin = now_us();
        match self {
            Self::ApiLinkCut => hot.api_link.restore(),
            Self::WorkerLinksCut | Self::OneWorkerLinkCut => {
                hot.worker_links.iter().for_each(|link| link.restore());
            }
            Self::Frozen => hot.stack.redis.thaw(),
            Self::ReadOnly => hot.stack.redis.command(&["REPLICAOF", "NO", "ONE"]),
            Self::Full => configure(hot, &SETTINGS),
            Self::Restored => {
                hot.stack.redis.crash();
                hot.stack.redis.start_again();
            }
            Self::SubscriptionsKilled | Self::Flushed | Self::Deleted => {}
        }
        match self.may_go_back() {
            true => begin..now_us() + RETURN_US,
            false => 0..0,
        }
    }
}

fn configure(hot: &Hot, settings: &[[&str; 2]]) {
    for [name, value] in settings {
        hot.stack.redis.command(&["CONFIG", "SET", name, value]);
    }
}
