//! Detects partitions whose log is not the one that the group has read: recreated, truncated,
//! restored, or with a committed offset that the log never had. Pure.
//!
//! Offsets of the old log mean nothing in the new log, so the worker reads such a partition from
//! its beginning. Versions make it harmless to read records again that are already stored.

use std::{collections::HashMap, fmt};

use super::topic_identity::TopicId;

/// How the worker detected that a partition went back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The topic id differs from the one that the offsets belong to.
    Recreated {
        /// The id that the offsets belong to.
        was: TopicId,
        /// The current id of the topic.
        is: TopicId,
    },
    /// The log ends below an offset that was committed or read.
    EndsBelow {
        /// The offset after the last record.
        end: i64,
    },
    /// A record has a lower offset than one that was read before.
    Fell {
        /// The offset of that record.
        to: i64,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recreated { was, is } => write!(formatter, "topic id changed from {was} to {is}"),
            Self::EndsBelow { end } => write!(formatter, "the log ends at {end}"),
            Self::Fell { to } => write!(formatter, "offsets fell to {to}"),
        }
    }
}

/// The committed offset of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    /// The next offset to read.
    pub(super) offset: i64,
    /// The id of the topic that the offset belongs to, if the commit carries it.
    pub(super) id: Option<TopicId>,
}

/// A partition that went back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WentBack {
    /// The partition number.
    pub(super) partition: i32,
    /// The next offset that was expected in the old log.
    pub(super) expected: Option<i64>,
    /// How the worker detected it.
    pub(super) cause: Cause,
}

/// The logs of the assigned partitions.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// The current id of the topic.
    id: Option<TopicId>,
    /// Former ids of the topic. A broker with old metadata may still return one.
    former: Vec<TopicId>,
    partitions: HashMap<i32, Log>,
}

#[derive(Debug, Default)]
struct Log {
    /// The id of the topic that the offsets belong to, once known.
    id: Option<TopicId>,
    /// The offset after everything that was read or committed.
    next: Option<i64>,
    /// `next` at the last statistics, if these showed a lower end.
    doubted: Option<i64>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Continues,
    /// Statistics show an end below `next`. The broker has yet to confirm it.
    Suspect,
    /// The partition must be read from its beginning.
    WentBack(Cause),
    /// The partition is read from its beginning, `start`. The commit that replaces the old offset
    /// is pending.
    Restarted { start: i64 },
}

impl Logs {
    /// Begins an assignment of `partition`. `end` is the end of its log, if the broker returned it.
    pub(super) fn assign(
        &mut self,
        partition: i32,
        committed: Option<Committed>,
        end: Option<i64>,
    ) {
        let (next, id) = match committed {
            Some(committed) => (Some(committed.offset), committed.id),
            None => (None, None),
        };
        // Kafka deletes the offsets of a topic together with the topic. A former id shows that this
        // client read an earlier topic, so a partition without a committed offset went back.
        let id = id.or_else(|| self.former.first().cloned());
        let log = Log {
            id,
            next,
            doubted: None,
            state: State::Continues,
        };
        self.partitions.insert(partition, log);
        self.compare_ids();
        if let Some(end) = end {
            self.ends(partition, end);
        }
    }

    /// Ends the assignment of `partition`.
    pub(super) fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Stores the topic id that a broker returned, and compares it with the ids of the offsets.
    pub(super) fn identify(&mut self, id: TopicId) {
        if self.former.contains(&id) || self.id.as_ref() == Some(&id) {
            return;
        }
        self.former.extend(self.id.replace(id));
        self.compare_ids();
    }

    fn compare_ids(&mut self) {
        let Some(is) = &self.id else { return };
        for log in self.partitions.values_mut() {
            match &log.id {
                None => log.id = Some(is.clone()),
                Some(was) if was != is => {
                    let (was, is) = (was.clone(), is.clone());
                    log.went_back(Cause::Recreated { was, is });
                }
                Some(_) => {}
            }
        }
    }

    /// Returns whether the record at `offset` continues the log. The caller must drop a record that
    /// does not.
    pub(super) fn received(&mut self, partition: i32, offset: i64) -> bool {
        let Some(log) = self.partitions.get_mut(&partition) else {
            return false;
        };
        if log.next.is_some_and(|next| offset < next) {
            log.went_back(Cause::Fell { to: offset });
        }
        if let State::WentBack(_) = log.state {
            return false;
        }
        log.next = Some(offset + 1);
        true
    }

    /// Notes an end of the log from statistics. It may be out of date, because records may have
    /// arrived since. The partition becomes suspect if the end is below what was read before the
    /// previous statistics.
    pub(super) fn seems_to_end(&mut self, partition: i32, end: i64) {
        let Some(log) = self.partitions.get_mut(&partition) else {
            return;
        };
        let before = log.doubted.take();
        log.doubted = log.next.filter(|next| end < *next);
        if let State::Continues = log.state
            && before.is_some_and(|before| end < before)
        {
            log.state = State::Suspect;
        }
    }

    /// Notes the current end of the log, as returned by the broker.
    pub(super) fn ends(&mut self, partition: i32, end: i64) {
        let Some(log) = self.partitions.get_mut(&partition) else {
            return;
        };
        if let State::Suspect = log.state {
            log.state = State::Continues;
        }
        if log.next.is_some_and(|next| end < next) {
            log.went_back(Cause::EndsBelow { end });
        }
    }

    /// Notes that `partition` is read from `start`, the beginning of its current log.
    pub(super) fn restarted(&mut self, partition: i32, start: i64) {
        if let Some(log) = self.partitions.get_mut(&partition) {
            *log = Log {
                id: self.id.clone(),
                next: Some(start),
                doubted: None,
                state: State::Restarted { start },
            };
        }
    }

    /// Notes that the committed offset of `partition` belongs to its current log.
    pub(super) fn committed(&mut self, partition: i32) {
        if let Some(log) = self.partitions.get_mut(&partition)
            && let State::Restarted { .. } = log.state
        {
            log.state = State::Continues;
        }
    }

    /// Whether the topic was recreated while this client used it.
    pub(super) fn is_recreated(&self) -> bool {
        !self.former.is_empty()
    }

    /// The id of the topic that the offsets of `partition` belong to.
    pub(super) fn id(&self, partition: i32) -> Option<&TopicId> {
        self.partitions.get(&partition)?.id.as_ref()
    }

    /// Partitions whose end the broker has yet to confirm.
    pub(super) fn suspects(&self) -> Vec<i32> {
        self.select(|_, log| matches!(log.state, State::Suspect).then_some(()))
            .map(|(partition, ())| partition)
            .collect()
    }

    /// Partitions that must be read from their beginning.
    pub(super) fn gone_back(&self) -> Vec<WentBack> {
        let gone = self.select(|partition, log| match &log.state {
            State::WentBack(cause) => Some(WentBack {
                partition,
                expected: log.next,
                cause: cause.clone(),
            }),
            _ => None,
        });
        gone.map(|(_, went_back)| went_back).collect()
    }

    /// Partitions whose old committed offset must be replaced, each with the beginning of its log.
    pub(super) fn uncommitted(&self) -> Vec<(i32, i64)> {
        self.select(|_, log| match log.state {
            State::Restarted { start } => Some(start),
            _ => None,
        })
        .collect()
    }

    /// Whether every log continues and no action is pending.
    pub(super) fn all_continue(&self) -> bool {
        self.partitions
            .values()
            .all(|log| matches!(log.state, State::Continues))
    }

    fn select<T>(
        &self,
        mut matching: impl FnMut(i32, &Log) -> Option<T>,
    ) -> impl Iterator<Item = (i32, T)> {
        self.partitions
            .iter()
            .filter_map(move |(partition, log)| Some((*partition, matching(*partition, log)?)))
    }
}

impl Log {
    /// Marks the log as gone back. Keeps the first cause.
    fn went_back(&mut self, cause: Cause) {
        if !matches!(self.state, State::WentBack(_)) {
            self.state = State::WentBack(cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TopicId {
        TopicId::new(text).unwrap()
    }

    fn committed(offset: i64, topic: Option<&str>) -> Option<Committed> {
        Some(Committed {
            offset,
            id: topic.map(id),
        })
    }

    /// Returns the cause for the only partition that went back.
    fn cause(logs: &Logs) -> Option<Cause> {
        logs.gone_back().pop().map(|gone| gone.cause)
    }

    fn recreated() -> Option<Cause> {
        let (was, is) = (id("a"), id("b"));
        Some(Cause::Recreated { was, is })
    }

    #[test]
    fn an_offset_of_another_topic_means_that_it_was_recreated() {
        let mut logs = Logs::default();
        logs.identify(id("b"));
        logs.assign(0, committed(5, Some("a")), Some(100));
        assert_eq!(cause(&logs), recreated());
    }

    #[test]
    fn a_topic_id_learned_late_is_compared_too() {
        let mut logs = Logs::default();
        logs.assign(0, committed(5, Some("a")), Some(100));
        assert!(logs.received(0, 5));
        logs.identify(id("b"));
        assert_eq!(cause(&logs), recreated());
        assert!(!logs.received(0, 6), "belongs to the new log");
    }

    #[test]
    fn an_offset_without_an_id_belongs_to_the_current_topic() {
        let mut logs = Logs::default();
        logs.identify(id("a"));
        logs.assign(0, committed(5, None), Some(5));
        logs.assign(1, None, Some(0));
        assert!(logs.all_continue());
        assert_eq!(logs.id(0), Some(&id("a")));
        logs.identify(id("b"));
        assert_eq!(logs.gone_back().len(), 2, "also with nothing committed");
    }

    #[test]
    fn a_former_topic_id_is_ignored() {
        let mut logs = Logs::default();
        logs.identify(id("a"));
        assert!(!logs.is_recreated());
        logs.identify(id("b"));
        assert!(logs.is_recreated());
        logs.assign(0, committed(5, Some("b")), None);
        logs.identify(id("a"));
        assert!(logs.all_continue());
    }

    #[test]
    fn without_a_committed_offset_the_client_compares_the_topic_that_it_has_read() {
        let mut logs = Logs::default();
        logs.identify(id("a"));
        logs.identify(id("b"));
        logs.assign(0, None, None);
        assert_eq!(cause(&logs), recreated());
    }

    #[test]
    fn a_confirmed_end_below_a_committed_or_read_offset_went_back() {
        let mut logs = Logs::default();
        logs.assign(0, committed(5, None), Some(4));
        assert_eq!(cause(&logs), Some(Cause::EndsBelow { end: 4 }));
        logs.assign(0, committed(5, None), Some(5));
        assert!(logs.received(0, 5));
        logs.seems_to_end(0, 5);
        logs.seems_to_end(0, 6);
        assert!(logs.all_continue(), "the statistics were late");
        logs.seems_to_end(0, 5);
        logs.seems_to_end(0, 5);
        assert_eq!(logs.suspects(), [0]);
        logs.ends(0, 6);
        assert!(logs.all_continue(), "the broker did not confirm it");
        logs.seems_to_end(0, 5);
        assert_eq!(logs.suspects(), [0]);
        logs.ends(0, 5);
        assert_eq!(cause(&logs), Some(Cause::EndsBelow { end: 5 }));
    }

    #[test]
    fn falling_offsets_went_back_and_gaps_did_not() {
        let mut logs = Logs::default();
        logs.assign(0, None, Some(0));
        assert!(logs.received(0, 7) && logs.received(0, 9));
        assert!(!logs.received(0, 9));
        assert_eq!(cause(&logs), Some(Cause::Fell { to: 9 }));
        assert!(!logs.received(0, 10), "until it is read from its beginning");
    }

    #[test]
    fn a_partition_that_is_read_from_its_beginning_waits_for_its_commit() {
        let mut logs = Logs::default();
        logs.assign(0, committed(5, Some("a")), None);
        logs.identify(id("b"));
        logs.restarted(0, 2);
        assert_eq!(
            (logs.id(0), logs.uncommitted()),
            (Some(&id("b")), vec![(0, 2)])
        );
        assert!(logs.received(0, 2));
        logs.committed(0);
        assert!(logs.all_continue());
        // Before the commit, the partition can go back again.
        logs.restarted(0, 2);
        logs.identify(id("c"));
        assert_eq!(logs.gone_back().len(), 1);
        assert!(logs.uncommitted().is_empty());
    }

    #[test]
    fn a_revoked_partition_receives_nothing() {
        let mut logs = Logs::default();
        logs.assign(0, None, None);
        logs.revoke(0);
        assert!(!logs.received(0, 1));
        logs.ends(0, 0);
        assert!(logs.all_continue());
    }
}
