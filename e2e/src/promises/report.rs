//! The results of the trials, as a section of `docs/promises.md`.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use super::{
    list::PROMISES,
    sabotage::{SABOTAGES, Sabotage},
};

/// The outcome of one trial.
#[derive(Debug)]
pub struct Outcome {
    /// Name of the trial, or of the rule that was broken on purpose.
    pub name: &'static str,
    /// Duration.
    pub took: Duration,
    /// The measurements, or the failure.
    pub result: Result<String, String>,
}

impl Outcome {
    /// Whether the trial succeeded.
    pub fn is_good(&self) -> bool {
        self.result.is_ok()
    }
}

/// One line for the terminal.
impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs();
        match &self.result {
            Ok(figures) => write!(f, "passed  {seconds:>5} s  {}: {figures}", self.name),
            Err(complaint) => write!(f, "FAILED  {seconds:>5} s  {}: {complaint}", self.name),
        }
    }
}

/// Returns the promises with their trials and results, and the rules that were broken on purpose
/// with the trials that noticed them, as Markdown. A trial that did not run has no figures.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let of = |name: &str| match outcomes.iter().find(|outcome| outcome.name == name) {
        Some(outcome) => cell(outcome),
        None => "not run".to_owned(),
    };
    let mut page = String::new();
    for promise in PROMISES {
        page += &format!(
            "## {}. {}\n\n| fault | trial | last run |\n|---|---|---|\n",
            promise.number, promise.sentence
        );
        for trial in promise.trials {
            page += &format!(
                "| {} | `{}` | {} |\n",
                trial.fault,
                trial.name,
                of(trial.name)
            );
        }
        page.push('\n');
    }
    page += "## Trials that must fail\n\n| broken invariant | trial that detects it | last run \
             |\n|---|---|---|\n";
    for sabotage in SABOTAGES {
        let Sabotage {
            invariant, trial, ..
        } = sabotage;
        page += &format!("| `{invariant}` | `{trial}` | {} |\n", of(invariant));
    }
    page
}

fn cell(outcome: &Outcome) -> String {
    let seconds = outcome.took.as_secs();
    match &outcome.result {
        Ok(figures) => format!("{figures} ({seconds} s)"),
        Err(complaint) => {
            let first = complaint.lines().next().unwrap_or_default();
            format!("**broken**: {}", first.replace('|', "\\|"))
        }
    }
}
