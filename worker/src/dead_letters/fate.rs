//! Which dead letters a replay sends.

use std::collections::BTreeMap;

use shared::{order::OrderUid, storage::Replayed};

use super::row::Row;
use crate::kafka::dead_letter::{DeadLetter, Obstacle};

/// How to replay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Send them as new records.
    pub(super) as_new: bool,
    /// Send orders that were erased, too.
    pub(super) force: bool,
    /// Send what was replayed before, too.
    pub(super) again: bool,
}

/// A dead letter that may be sent back, without its value.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) row: Row,
    /// The orders of which a new record would hold data: that of the value, and that of the key,
    /// because a value that is rejected again becomes a new dead letter. Empty if the record erases
    /// an order.
    pub(super) orders: Vec<OrderUid>,
    pub(super) obstacle: Option<Obstacle>,
}

impl Candidate {
    pub(super) fn of(letter: &DeadLetter, options: Options) -> Self {
        Self {
            row: Row::of(letter),
            // Only a new version can bring an erased order back.
            orders: match options.as_new && letter.record.value.is_some() {
                true => [letter.value_uid(), letter.key_uid()]
                    .into_iter()
                    .flatten()
                    .collect(),
                false => Vec::new(),
            },
            obstacle: letter.obstacle(options.as_new),
        }
    }

    /// Decides what a replay does with the dead letter.
    ///
    /// A replay as a new record differs from one with the original version, which may have lost to
    /// newer data. So the latter does not count as a replay as new.
    pub(super) fn fate(
        &self,
        replayed: Option<Replayed>,
        erased: &[OrderUid],
        options: Options,
    ) -> Fate {
        let counts = |replayed: &Replayed| replayed.as_new || !options.as_new;
        if let Some(obstacle) = self.obstacle {
            Fate::Impossible(obstacle)
        } else if !options.again && replayed.as_ref().is_some_and(counts) {
            Fate::Replayed
        } else if let Some(order) = self.erased(erased).filter(|_| !options.force) {
            Fate::Erased(order)
        } else {
            Fate::Send
        }
    }

    fn erased(&self, erased: &[OrderUid]) -> Option<OrderUid> {
        self.orders.iter().copied().find(|uid| erased.contains(uid))
    }
}

/// What a replay does with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Send it.
    Send,
    /// Skip it: it was replayed before.
    Replayed,
    /// Reject it: this order was erased, and a new version would bring it back.
    Erased(OrderUid),
    /// Reject it: it cannot be sent.
    Impossible(Obstacle),
}

impl Fate {
    /// Returns why a dead letter is rejected; none if it is not.
    pub(super) fn rejection(self) -> Option<String> {
        match self {
            Self::Send | Self::Replayed => None,
            Self::Erased(uid) => Some(format!(
                "order {uid} was erased, and a new record would bring it back; to do so, add \
                 --force"
            )),
            Self::Impossible(obstacle) => Some(obstacle.words().to_owned()),
        }
    }
}

/// How many dead letters have which fate.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Those to send, by reason.
    pub(super) sent: BTreeMap<String, u64>,
    pub(super) replayed: u64,
    pub(super) rejected: u64,
}

impl Plan {
    pub(super) fn add(&mut self, candidate: &Candidate, fate: Fate) {
        match fate {
            Fate::Send => *self.sent.entry(candidate.row.reason.clone()).or_default() += 1,
            Fate::Replayed => self.replayed += 1,
            Fate::Erased(_) | Fate::Impossible(_) => self.rejected += 1,
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Returns the reasons of those to send: `3 invalid_order, 1 too_large`.
    pub(super) fn reasons(&self) -> String {
        let reasons = self.sent.iter();
        let reasons = reasons.map(|(reason, count)| format!("{count} {reason}"));
        reasons.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::dead_letters::row::tests::letter;

    const KEPT: Options = Options {
        as_new: false,
        force: false,
        again: false,
    };
    const AS_NEW: Options = Options {
        as_new: true,
        ..KEPT
    };

    fn order(value: &[u8]) -> DeadLetter {
        letter("invalid_order", "rule", value)
    }

    fn fate(letter: &DeadLetter, replayed: Option<bool>, options: Options) -> Fate {
        let replayed = replayed.map(|as_new| Replayed {
            at: DateTime::<Utc>::UNIX_EPOCH,
            as_new,
        });
        let erased = [OrderUid::parse("gone").unwrap()];
        Candidate::of(letter, options).fate(replayed, &erased, options)
    }

    #[test]
    fn what_was_replayed_is_skipped() {
        let letter = order(br#"{"order_uid":"here"}"#);
        assert_eq!(fate(&letter, None, KEPT), Fate::Send);
        for as_new in [false, true] {
            assert_eq!(fate(&letter, Some(as_new), KEPT), Fate::Replayed);
        }
        let again = Options {
            again: true,
            ..KEPT
        };
        assert_eq!(fate(&letter, Some(false), again), Fate::Send);
    }

    #[test]
    fn a_replay_with_the_old_version_is_none_as_new() {
        let letter = order(br#"{"order_uid":"here"}"#);
        assert_eq!(fate(&letter, Some(false), AS_NEW), Fate::Send);
        assert_eq!(fate(&letter, Some(true), AS_NEW), Fate::Replayed);
    }

    #[test]
    fn an_erased_order_comes_back_only_by_force() {
        let gone = order(br#"{"order_uid":"gone"}"#);
        let uid = OrderUid::parse("gone").unwrap();
        assert_eq!(fate(&gone, None, AS_NEW), Fate::Erased(uid));
        let words = Fate::Erased(uid).rejection().unwrap();
        assert!(words.contains("order gone was erased") && words.contains("--force"));
        assert_eq!(fate(&gone, None, KEPT), Fate::Send, "its version is older");
        let force = Options {
            force: true,
            ..AS_NEW
        };
        assert_eq!(fate(&gone, None, force), Fate::Send);
        // A broken value would become a new dead letter with the data of the order.
        let mut broken = order(b"{");
        broken.record.key = Some(b"gone".to_vec());
        assert_eq!(fate(&broken, None, AS_NEW), Fate::Erased(uid));
        assert_eq!(fate(&broken, None, KEPT), Fate::Send);
        // An erasure erases again.
        let mut erasure = order(b"");
        erasure.record.key = Some(b"gone".to_vec());
        erasure.record.value = None;
        assert_eq!(fate(&erasure, None, AS_NEW), Fate::Send);
    }

    #[test]
    fn what_cannot_be_sent_is_rejected() {
        let left_out = letter(
            "too_large",
            "3 bytes; value left out: 3 bytes, sha256 ab",
            b"",
        );
        let impossible = Fate::Impossible(Obstacle::WithoutValue);
        assert_eq!(fate(&left_out, Some(true), KEPT), impossible);
        let mut foreign = order(b"{}");
        foreign.record.headers.clear();
        let impossible = Fate::Impossible(Obstacle::Foreign);
        assert_eq!(fate(&foreign, None, AS_NEW), impossible);
        let mut unversioned = order(b"{}");
        unversioned
            .record
            .headers
            .retain(|header| header.name != "dlq-offset");
        let impossible = Fate::Impossible(Obstacle::WithoutVersion);
        assert_eq!(fate(&unversioned, None, KEPT), impossible);
        assert_eq!(fate(&unversioned, None, AS_NEW), Fate::Send);
    }

    #[test]
    fn a_plan_counts_by_reason() {
        let mut plan = Plan::default();
        for (reason, fate) in [
            ("too_large", Fate::Send),
            ("invalid_order", Fate::Send),
            ("invalid_order", Fate::Send),
            ("invalid_order", Fate::Replayed),
            (
                "invalid_order",
                Fate::Erased(OrderUid::parse("gone").unwrap()),
            ),
            ("invalid_order", Fate::Impossible(Obstacle::Foreign)),
        ] {
            plan.add(&Candidate::of(&letter(reason, "", b"{}"), KEPT), fate);
        }
        assert_eq!((plan.count(), plan.replayed, plan.rejected), (3, 1, 2));
        assert_eq!(plan.reasons(), "2 invalid_order, 1 too_large");
    }
}
