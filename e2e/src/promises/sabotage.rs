//! Proof that the trials can fail: programs that break one invariant each, and the trial that must
//! detect it.

use super::{list::trial, run::Run};

/// An invariant that a patch breaks, and the trial that must detect it.
///
/// `e2e/sabotage/INVARIANT.patch` breaks it in a copy of the workspace.
#[derive(Debug)]
pub struct Sabotage {
    /// Name of the invariant and of its patch.
    pub invariant: &'static str,
    /// The trial that must fail in a short run.
    pub trial: &'static str,
    /// Expected text of the failure.
    pub complaint: &'static str,
}

/// One for each patch in `e2e/sabotage`.
pub const SABOTAGES: &[Sabotage] = &[
    // The worker stores an offset only after every write of its record: Postgres, Redis or a
    // repair mark, dead letter.
    Sabotage {
        invariant: "offset_after_write",
        trial: "an_unfinished_record_holds_the_offset_back",
        complaint: "which is in neither Postgres nor the dead letter topic",
    },
    // The stored offset is the lowest unfinished one, not the one behind the highest finished one.
    Sabotage {
        invariant: "contiguous_offset",
        trial: "an_unfinished_record_holds_the_offset_back",
        complaint: "which is in neither Postgres nor the dead letter topic",
    },
    // A record of an earlier assignment of its partition moves no offset.
    Sabotage {
        invariant: "epoch_fence",
        trial: "a_late_commit_answer_moves_no_offset_back",
        complaint: "moved back from",
    },
    // A transient error is never treated as an error of the record.
    Sabotage {
        invariant: "transient_is_no_verdict",
        trial: "workers_wait_for_an_unavailable_postgres",
        complaint: "was dead-lettered",
    },
    // The children of an order are replaced only together with its row in `orders`.
    Sabotage {
        invariant: "children_follow_the_row",
        trial: "the_greatest_version_wins_in_any_order_of_arrival",
        complaint: "Postgres differs",
    },
    // Redis accepts no version that is older than the one it holds.
    Sabotage {
        invariant: "compare_and_set",
        trial: "an_older_version_never_replaces_a_newer_one_in_redis",
        complaint: "an older version replaced a newer one in Redis",
    },
    // A missing entry in Redis is created only from a row that was read or committed a moment ago.
    Sabotage {
        invariant: "fresh_fill",
        trial: "a_late_fill_writes_no_old_version_to_redis",
        complaint: "a late fill put an old version into Redis",
    },
    // The local cache keeps nothing that was loaded before the announcement of a newer version.
    Sabotage {
        invariant: "fill_fence",
        trial: "a_load_overtaken_by_an_announcement_is_not_cached",
        complaint: "a load that was overtaken was kept",
    },
];

impl Sabotage {
    /// Runs the trial with programs that break the invariant.
    ///
    /// # Errors
    /// The trial succeeds, or fails for another reason.
    pub fn is_detected(&self, seed: u64) -> Result<(), String> {
        let Self {
            invariant,
            trial: name,
            complaint: expected,
        } = self;
        match trial(name).run(&mut Run::breaking(seed, invariant)) {
            Err(complaint) if complaint.contains(expected) => Ok(()),
            Err(complaint) => Err(format!(
                "{name} fails for another reason than {invariant}: {complaint}"
            )),
            Ok(()) => Err(format!("{name} passes although {invariant} is broken")),
        }
    }
}
