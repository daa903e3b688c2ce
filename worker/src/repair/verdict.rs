//! What a look at Redis asks for. Pure.

use std::time::Duration;

use shared::{
    cache::{CacheState, Watermark},
    storage::CompleteCache,
};

/// Workers record once a second how they see Redis: a younger record than this has an author that runs still.
const OTHERS_RUN: Duration = Duration::from_secs(10);

/// Within this time every other worker has followed a server that changed, and has recorded that.
const OTHERS_FOLLOW: Duration = Duration::from_secs(3);

/// A Redis that was complete.
pub(super) struct Seen {
    /// Up to this moment.
    pub(super) until: Watermark,
    /// As in [`CacheState`].
    pub(super) servers: Vec<String>,
    /// As in [`CacheState`].
    pub(super) replication: Vec<String>,
    /// As in [`CacheState`].
    pub(super) evicted: u64,
}

/// What a look at Redis asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has lost nothing: the watermark may move on from here.
    Complete(Watermark),
    /// It has evicted the watermark and lost nothing else that matters. It was complete up to this moment.
    Evicted(Watermark),
    /// It came back with older content, or that is unknown: everything since this moment is written again, or all is
    /// deleted if there is none.
    Lost(Option<Watermark>),
    /// Other workers write to another server.
    Misplaced,
}

/// Compares a look at Redis with what this worker has `seen` and with what a worker has `recorded` in Postgres.
///
/// The record stands in for what this worker has seen when it starts: if each start were a reason for a repair, a rolling
/// restart would empty Redis wherever more orders come than can be written again.
pub(super) fn judge(
    seen: Option<&Seen>,
    recorded: Option<&CompleteCache>,
    state: &CacheState,
) -> Verdict {
    let is_foreign = |recorded: &CompleteCache| recorded.servers != state.servers;
    let others_agree_until = match seen {
        // This worker saw this server complete, and since then another worker saw another one.
        Some(seen) if seen.servers == state.servers => OTHERS_RUN,
        // This server has changed under this worker.
        Some(_) => Duration::ZERO,
        // A worker that starts waits for the others to follow a server that has just changed.
        None => OTHERS_FOLLOW,
    };
    if recorded.is_some_and(|recorded| is_foreign(recorded) && recorded.age < others_agree_until) {
        return Verdict::Misplaced;
    }
    let known = match (seen, recorded) {
        (Some(seen), _) => Some((seen.until, seen.servers.as_slice())),
        (None, Some(recorded)) => Some((recorded.until.0, recorded.servers.as_slice())),
        (None, None) => None,
    };
    let is_same_server = known.is_some_and(|(_, servers)| servers == state.servers);
    match (state.watermark, known) {
        _ if state.bypass || state.cleared => Verdict::Lost(state.watermark),
        (Some(watermark), Some((until, _))) if is_same_server && until <= watermark => {
            Verdict::Complete(watermark)
        }
        // While this worker was at another server, others may have moved the watermark of this one.
        (Some(watermark), Some((until, _))) => Verdict::Lost(Some(watermark.min(until))),
        (Some(watermark), None) => Verdict::Lost(Some(watermark)),
        (None, _) => match seen.filter(|seen| was_evicted(seen, state)) {
            Some(seen) => {
                let recorded = recorded.map_or(seen.until, |recorded| recorded.until.0);
                Verdict::Evicted(seen.until.max(recorded))
            }
            None => Verdict::Lost(None),
        },
    }
}

/// Whether the watermark is missing only because Redis evicted it. The process is the one that this worker saw complete, so
/// it was not restarted from a file; it has not taken its content from another server since, which changes the replication
/// id; and it has evicted keys since. A flush leaves nothing that could be older than Postgres.
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
            until: 100,
            servers: names(server),
            replication: names("r"),
            evicted: 5,
        })
    }

    fn recorded(server: &str, seconds: u64) -> Option<CompleteCache> {
        Some(CompleteCache {
            until: shared::storage::DatabaseTime(110),
            servers: names(server),
            age: Duration::from_secs(seconds),
        })
    }

    fn state(server: &str, watermark: Option<Watermark>) -> CacheState {
        CacheState {
            servers: names(server),
            replication: names("r"),
            evicted: 6,
            watermark,
            ..CacheState::default()
        }
    }

    fn verdict(seen: Option<Seen>, recorded: Option<CompleteCache>, state: &CacheState) -> Verdict {
        judge(seen.as_ref(), recorded.as_ref(), state)
    }

    #[test]
    fn a_server_is_complete_until_it_loses_its_watermark_or_is_replaced() {
        let state = |watermark| state("a", watermark);
        for (expected, seen, watermark) in [
            (Verdict::Complete(120), seen("a"), Some(120)),
            (Verdict::Lost(Some(99)), seen("a"), Some(99)),
            // What others wrote while this worker was at another server is written again.
            (Verdict::Lost(Some(100)), seen("b"), Some(120)),
            (Verdict::Lost(None), seen("b"), None),
            // A worker that starts trusts the record.
            (Verdict::Complete(120), None, Some(120)),
            (Verdict::Lost(Some(109)), None, Some(109)),
            (Verdict::Lost(None), None, None),
        ] {
            let found = verdict(seen, recorded("a", 1), &state(watermark));
            assert_eq!(found, expected, "{watermark:?}");
        }
        assert_eq!(
            verdict(None, None, &state(Some(1))),
            Verdict::Lost(Some(1)),
            "nobody knows"
        );
    }

    #[test]
    fn a_watermark_counts_as_evicted_only_if_nothing_else_explains_its_loss() {
        let evicted = state("a", None);
        let found = |state: &CacheState| verdict(seen("a"), recorded("a", 1), state);
        assert_eq!(found(&evicted), Verdict::Evicted(110));
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
            assert_eq!(found(&other), Verdict::Lost(None), "{other:?}");
        }
        let unnamed = CacheState {
            servers: Vec::new(),
            ..state("a", None)
        };
        let seen = Seen {
            servers: Vec::new(),
            ..seen("a").unwrap()
        };
        assert_eq!(judge(Some(&seen), None, &unnamed), Verdict::Lost(None));
    }

    #[test]
    fn a_worker_leaves_a_server_that_the_others_do_not_write_to() {
        let here = state("a", Some(120));
        for (expected, seen, age) in [
            (Verdict::Misplaced, seen("a"), 1),
            // The others are gone.
            (Verdict::Complete(120), seen("a"), 11),
            // The server was restarted; no other worker has seen that yet.
            (Verdict::Lost(Some(100)), seen("b"), 1),
            (Verdict::Misplaced, None, 1),
            (Verdict::Lost(Some(110)), None, 4),
        ] {
            let found = verdict(seen, recorded("b", age), &here);
            assert_eq!(found, expected, "{age}");
        }
    }
}
