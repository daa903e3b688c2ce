//! Proof that the trials can fail: programs that break one rule each, and the trial that notices.

use shared::fault::Invariant;

use super::{Run, run::outcome, trial};

/// A rule that is broken on purpose, and the trial that must notice.
#[derive(Debug)]
pub struct Sabotage {
    /// The rule.
    pub rule: Invariant,
    /// The trial that must fail in a short run.
    pub trial: &'static str,
    /// Expected text of the failure.
    pub complaint: &'static str,
}

/// One for each rule.
pub const SABOTAGES: &[Sabotage] = &[
    Sabotage {
        rule: Invariant::OffsetAfterWrite,
        trial: "an_unfinished_record_holds_the_offset_back",
        complaint: "which is in neither Postgres nor the dead letter topic",
    },
    Sabotage {
        rule: Invariant::ContiguousOffset,
        trial: "an_unfinished_record_holds_the_offset_back",
        complaint: "which is in neither Postgres nor the dead letter topic",
    },
    Sabotage {
        rule: Invariant::EpochFence,
        trial: "a_late_answer_takes_no_offset_back",
        complaint: "went back from",
    },
    Sabotage {
        rule: Invariant::TransientIsNoVerdict,
        trial: "an_absent_postgres_is_waited_for",
        complaint: "was refused for what it says",
    },
    Sabotage {
        rule: Invariant::ChildrenFollowTheRow,
        trial: "the_greatest_version_wins_whatever_the_order",
        complaint: "Postgres differs",
    },
    Sabotage {
        rule: Invariant::CompareAndSet,
        trial: "an_older_version_never_replaces_a_newer_one_in_redis",
        complaint: "an older version replaced a newer one in Redis",
    },
    Sabotage {
        rule: Invariant::FreshFill,
        trial: "a_fill_that_comes_late_puts_nothing_old_into_redis",
        complaint: "a late fill put an old version into Redis",
    },
    Sabotage {
        rule: Invariant::FillFence,
        trial: "a_load_that_an_announcement_overtakes_is_not_kept",
        complaint: "a load that was overtaken was kept",
    },
];

impl Sabotage {
    /// Runs the trial with programs that break the rule.
    ///
    /// # Errors
    /// The trial succeeds, or fails for another reason.
    pub fn is_noticed(&self, seed: u64) -> Result<(), String> {
        let (rule, trial) = (self.rule.as_str(), trial(self.trial));
        match outcome(trial, &mut Run::breaking(seed, self.rule)) {
            Err(complaint) if complaint.contains(self.complaint) => Ok(()),
            Err(complaint) => Err(format!(
                "{} complains of something else than {rule}: {complaint}",
                self.trial
            )),
            Ok(()) => Err(format!(
                "{} does not notice that {rule} is broken",
                self.trial
            )),
        }
    }
}
