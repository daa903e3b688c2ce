//! State of the consumer group and the brokers, for the rest of the process.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::statistics::ConsumerGroup;
use shared::telemetry::Dependency;

/// Membership, lag, unreadable partitions, and whether brokers answer.
pub struct GroupState {
    member: AtomicBool,
    /// Assignments so far, including those without partitions.
    rounds: AtomicU64,
    lag: AtomicI64,
    lagging_since: Mutex<Option<Instant>>,
    /// When the poll thread last reported that it is alive. None before the thread runs.
    last_poll: Mutex<Option<Instant>>,
    /// Partitions that cannot be read although brokers answer, with their errors.
    unreadable: Mutex<BTreeMap<i32, String>>,
    brokers: Dependency,
    /// Whether the last statistics had no connection to a broker.
    disconnected: AtomicBool,
}

impl GroupState {
    /// Creates the state of a process that has no information yet.
    pub fn new() -> Self {
        Self {
            member: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            lag: AtomicI64::new(0),
            lagging_since: Mutex::new(None),
            last_poll: Mutex::new(None),
            unreadable: Mutex::default(),
            brokers: Dependency::new("kafka", "kafka_up"),
            disconnected: AtomicBool::new(false),
        }
    }

    /// State of the connection to the brokers.
    pub fn brokers(&self) -> &Dependency {
        &self.brokers
    }

    /// Whether this process is a member of the group, with or without partitions.
    pub fn is_member(&self) -> bool {
        self.member.load(Ordering::Relaxed)
    }

    /// Number of unfinished records in the assigned partitions, about one second old.
    pub fn lag(&self) -> i64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// How long there has been readable lag while a broker was up.
    pub fn lagging_for(&self) -> Duration {
        since(&self.lagging_since)
    }

    /// Time since the poll thread last reported that it is alive. Zero before the thread runs.
    pub fn silent_for(&self) -> Duration {
        since(&self.last_poll)
    }

    /// Assigned partitions that cannot be read although brokers answer, with their errors.
    pub fn unreadable(&self) -> BTreeMap<i32, String> {
        self.unreadable.lock().clone()
    }

    /// The number of assignments so far, including those without partitions.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Notes that the poll thread is alive.
    pub(super) fn polled(&self) {
        *self.last_poll.lock() = Some(Instant::now());
    }

    /// Notes an assignment, with or without partitions.
    pub(super) fn assigned(&self) {
        self.member.store(true, Ordering::Relaxed);
        self.rounds.fetch_add(1, Ordering::Relaxed);
        // An assignment proves that a broker answers. A worker that stops before its first
        // statistics leaves the group only if this is set.
        self.disconnected.store(false, Ordering::Relaxed);
        self.brokers.set(Ok(()));
    }

    /// Updates the state of the brokers from statistics. Only the second ones in a row without a
    /// connection count: statistics may be older than an assignment, and librdkafka may be
    /// replacing a connection.
    pub(super) fn set_connected(&self, connected: bool) {
        let was_disconnected = self.disconnected.swap(!connected, Ordering::Relaxed);
        if connected {
            self.brokers.set(Ok(()));
        } else if was_disconnected {
            self.brokers.set(Err(&"no connection to any broker"));
        }
    }

    /// Notes that the group has removed this process.
    pub(super) fn removed(&self) {
        self.member.store(false, Ordering::Relaxed);
    }

    /// Updates the membership from statistics. A rebalance does not end it. Removal from the group
    /// or loss of the coordinator does.
    pub(super) fn set_membership(&self, group: &ConsumerGroup) {
        if group.state != "up" || group.join_state == "init" {
            self.member.store(false, Ordering::Relaxed);
        } else if group.join_state == "steady" {
            self.member.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn set_unreadable(&self, partitions: BTreeMap<i32, String>) {
        *self.unreadable.lock() = partitions;
    }

    /// Sets the lag. `readable` is the part of `lag` outside the partitions whose fetches fail.
    /// Only that part counts as lagging, because a restart does not repair a failing fetch.
    pub(super) fn set_lag(&self, lag: i64, readable: i64) {
        self.lag.store(lag, Ordering::Relaxed);
        let mut since = self.lagging_since.lock();
        *since = match (readable > 0 && self.brokers.is_up(), *since) {
            (false, _) => None,
            (true, None) => Some(Instant::now()),
            (true, earlier) => earlier,
        };
    }
}

impl Default for GroupState {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the time since the instant; zero without one.
fn since(instant: &Mutex<Option<Instant>>) -> Duration {
    instant
        .lock()
        .map(|instant| instant.elapsed())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_from_before_an_assignment_do_not_end_it() {
        let state = GroupState::new();
        state.set_connected(false);
        state.set_connected(false);
        assert_eq!(state.brokers().state(), "down");
        state.assigned();
        state.set_connected(false);
        assert_eq!(state.brokers().state(), "up");
        state.set_connected(true);
        state.set_connected(false);
        assert_eq!(state.brokers().state(), "up");
        state.set_connected(false);
        assert_eq!(state.brokers().state(), "down");
    }
}
