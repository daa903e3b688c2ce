//! Decides which repair Redis needs. Pure: no I/O.

use std::time::Duration;

use shared::{DatabaseTime, cache::CacheState, storage::CompleteCache};

/// Every worker records the server of its Redis once a second. If the record is younger than this,
/// its author still runs.
const OTHERS_RUN: Duration = Duration::from_secs(10);

/// Within this time after a server changed, every other worker has followed it and recorded that.
const OTHERS_FOLLOW: Duration = Duration::from_secs(3);

/// A Redis as it was when this worker saw it complete.
pub(super) struct Seen {
    /// The moment up to which it was complete.
    pub(super) until: DatabaseTime,
    /// As in [`CacheState`].
    pub(super) servers: Vec<String>,
    /// As in [`CacheState`].
    pub(super) replication: Vec<String>,
    /// As in [`CacheState`].
    pub(super) evicted: u64,
}

/// The state of Redis: it decides which repair is needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Diagnosis {
    /// Redis has lost nothing; the watermark may move on from here.
    Complete(DatabaseTime),
    /// Redis has evicted the watermark but lost nothing else that matters. It was complete up to
    /// this moment.
    Evicted(DatabaseTime),
    /// Redis returned with older content, or may have. Everything since this moment is written
    /// again; if there is none, all entries are deleted.
    Lost(Option<DatabaseTime>),
    /// Other workers write to another server.
    Misplaced,
}

/// Compares the `state` of Redis with what this worker has `seen` and with what a worker has
/// `recorded` in Postgres.
///
/// A worker that starts has seen nothing, so it relies on the record. If each start caused a
/// repair, a rolling restart would empty Redis whenever more orders arrive than can be written
/// again.
pub(super) fn diagnose(
    seen: Option<&Seen>,
    recorded: Option<&CompleteCache>,
    state: &CacheState,
) -> Diagnosis {
    let is_unknown = |recorded: &CompleteCache| recorded.servers != state.servers;
    let others_agree_until = match seen {
        // This worker saw this server complete; since then another worker recorded another server.
        Some(seen) if seen.servers == state.servers => OTHERS_RUN,
        // The server has changed under this worker.
        Some(_) => Duration::ZERO,
        // A worker that starts waits until the others have followed a server that has just changed.
        None => OTHERS_FOLLOW,
    };
    if recorded.is_some_and(|recorded| is_unknown(recorded) && recorded.age < others_agree_until) {
        return Diagnosis::Misplaced;
    }
    let known = match (seen, recorded) {
        (Some(seen), _) => Some((seen.until, seen.servers.as_slice())),
        (None, Some(recorded)) => Some((recorded.until, recorded.servers.as_slice())),
        (None, None) => None,
    };
    let is_same_server = known.is_some_and(|(_, servers)| servers == state.servers);
    match (state.watermark, known) {
        _ if state.bypass || state.cleared => Diagnosis::Lost(state.watermark),
        (Some(watermark), Some((until, _))) if is_same_server && until <= watermark => {
            Diagnosis::Complete(watermark)
        }
        // While this worker used another server, other workers may have moved the watermark of this
        // one.
        (Some(watermark), Some((until, _))) => Diagnosis::Lost(Some(watermark.min(until))),
        (Some(watermark), None) => Diagnosis::Lost(Some(watermark)),
        (None, _) => match seen.filter(|seen| was_evicted(seen, state)) {
            Some(seen) => {
                let recorded = recorded.map_or(seen.until, |recorded| recorded.until);
                Diagnosis::Evicted(seen.until.max(recorded))
            }
            None => Diagnosis::Lost(None),
        },
    }
}

/// Returns whether the watermark is missing only because Redis evicted it. All of these must hold:
///
/// - The process is the one that this worker saw complete, so it was not restarted from a file.
/// - The replication id is the same, so it has not taken its content from another server since.
/// - It has evicted keys since.
///
/// A flush may look the same. It is harmless, because it leaves nothing that could be older than
/// Postgres.
fn was_evicted(seen: &Seen, state: &CacheState) -> bool {
    !state.servers.is_empty()
        && !state.replication.is_empty()
        && seen.servers == state.servers
        && seen.replication == state.replication
        && seen.evicted < state.evicted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    fn seen(server: &str) -> Option<Seen> {
        Some(Seen {
            until: DatabaseTime(100),
            servers: names(server),
            replication: names("r"),
            evicted: 5,
        })
    }

    fn recorded(server: &str, seconds: u64) -> Option<CompleteCache> {
        Some(CompleteCache {
            until: DatabaseTime(110),
            servers: names(server),
            age: Duration::from_secs(seconds),
        })
    }

    fn state(server: &str, watermark: Option<DatabaseTime>) -> CacheState {
        CacheState {
            servers: names(server),
            replication: names("r"),
            evicted: 6,
            watermark,
            ..CacheState::default()
        }
    }

    fn diagnosis(
        seen: Option<Seen>,
        recorded: Option<CompleteCache>,
        state: &CacheState,
    ) -> Diagnosis {
        diagnose(seen.as_ref(), recorded.as_ref(), state)
    }

    #[test]
    fn a_server_is_complete_until_it_loses_its_watermark_or_is_replaced() {
        let state = |watermark| state("a", watermark);
        for (expected, seen, watermark) in [
            (
                Diagnosis::Complete(DatabaseTime(120)),
                seen("a"),
                Some(DatabaseTime(120)),
            ),
            (
                Diagnosis::Lost(Some(DatabaseTime(99))),
                seen("a"),
                Some(DatabaseTime(99)),
            ),
            // What others wrote while this worker used another server is written again.
            (
                Diagnosis::Lost(Some(DatabaseTime(100))),
                seen("b"),
                Some(DatabaseTime(120)),
            ),
            (Diagnosis::Lost(None), seen("b"), None),
            // A worker that starts trusts the record.
            (
                Diagnosis::Complete(DatabaseTime(120)),
                None,
                Some(DatabaseTime(120)),
            ),
            (
                Diagnosis::Lost(Some(DatabaseTime(109))),
                None,
                Some(DatabaseTime(109)),
            ),
            (Diagnosis::Lost(None), None, None),
        ] {
            let found = diagnosis(seen, recorded("a", 1), &state(watermark));
            assert_eq!(found, expected, "{watermark:?}");
        }
        assert_eq!(
            diagnosis(None, None, &state(Some(DatabaseTime(1)))),
            Diagnosis::Lost(Some(DatabaseTime(1))),
            "without a record"
        );
    }

    #[test]
    fn a_lost_watermark_is_an_eviction_only_without_another_explanation() {
        let evicted = state("a", None);
        let found = |state: &CacheState| diagnosis(seen("a"), recorded("a", 1), state);
        assert_eq!(found(&evicted), Diagnosis::Evicted(DatabaseTime(110)));
        for other in [
            CacheState {
                evicted: 5,
                ..evicted.clone()
            },
            CacheState {
                replication: names("other"),
                ..evicted.clone()
            },
            CacheState {
                cleared: true,
                ..evicted.clone()
            },
            CacheState {
                bypass: true,
                ..evicted.clone()
            },
            CacheState {
                servers: names("b"),
                ..evicted
            },
        ] {
            assert_eq!(found(&other), Diagnosis::Lost(None), "{other:?}");
        }
        let unnamed = CacheState {
            servers: Vec::new(),
            ..state("a", None)
        };
        let seen = Seen {
            servers: Vec::new(),
            ..seen("a").unwrap()
        };
        assert_eq!(diagnose(Some(&seen), None, &unnamed), Diagnosis::Lost(None));
    }

    #[test]
    fn a_worker_leaves_a_server_that_other_workers_have_left() {
        let here = state("a", Some(DatabaseTime(120)));
        for (expected, seen, age) in [
            (Diagnosis::Misplaced, seen("a"), 1),
            // The other workers no longer run.
            (Diagnosis::Complete(DatabaseTime(120)), seen("a"), 11),
            // The server was restarted; no other worker has noticed yet.
            (Diagnosis::Lost(Some(DatabaseTime(100))), seen("b"), 1),
            (Diagnosis::Misplaced, None, 1),
            (Diagnosis::Lost(Some(DatabaseTime(110))), None, 4),
        ] {
            let found = diagnosis(seen, recorded("b", age), &here);
            assert_eq!(found, expected, "{age}");
        }
    }
}
