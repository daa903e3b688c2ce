//! Proof that the trials can fail: programs that break one rule each, and the trial that notices.

use shared::fault::Rule;

use super::{Run, run::outcome, trial};

/// A rule that is broken on purpose, and who notices.
#[derive(Debug)]
pub struct Sabotage {
    /// The rule.
    pub rule: Rule,
    /// The trial that fails, in its quick length.
    pub trial: &'static str,
    /// What it says.
    pub complaint: &'static str,
}

/// One for each rule.
pub const SABOTAGES: &[Sabotage] = &[Sabotage {
    rule: Rule::OffsetAfterWrite,
    trial: "killed_workers_lose_nothing_and_double_nothing",
    complaint: "Postgres",
}];

impl Sabotage {
    /// Runs the trial with programs that break the rule.
    ///
    /// # Errors
    /// When the trial does not notice, or complains of something else.
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
