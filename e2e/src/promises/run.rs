//! One run of a trial: its chance, its length, and what it measured.

use std::{
    any::Any,
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng};
use shared::fault::Rule;

use super::Trial;
use crate::stack::{Builder, Stack};

/// How long trials go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Seconds: in `make test`.
    Quick,
    /// As long as the promise asks for: in `make chaos`.
    Full {
        /// How long everything at once goes on.
        everything: Duration,
    },
}

/// One run of a trial.
#[derive(Debug)]
pub struct Run {
    /// Decides whatever is left to chance; the same seed, the same choices.
    pub seed: u64,
    scale: Scale,
    broken: Option<Rule>,
    figures: Vec<(&'static str, String)>,
}

impl Run {
    /// With that seed and length.
    pub fn new(seed: u64, scale: Scale) -> Self {
        Self {
            seed,
            scale,
            broken: None,
            figures: Vec::new(),
        }
    }

    /// With programs that break `rule`: the trial has to notice.
    pub fn breaking(seed: u64, rule: Rule) -> Self {
        Self {
            broken: Some(rule),
            ..Self::new(seed, Scale::Quick)
        }
    }

    /// The chance of this run.
    pub fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// The first in a quick run, the second in a full one.
    pub fn choose<T>(&self, quick: T, full: T) -> T {
        match self.scale {
            Scale::Quick => quick,
            Scale::Full { .. } => full,
        }
    }

    /// How long everything at once goes on, if that is at full length.
    pub(super) fn everything(&self) -> Option<Duration> {
        match self.scale {
            Scale::Quick => None,
            Scale::Full { everything } => Some(everything),
        }
    }

    /// Whether what is promised in seconds is to be asserted: only where nobody else wants the machine.
    pub fn is_full(&self) -> bool {
        matches!(self.scale, Scale::Full { .. })
    }

    /// A system for a trial.
    pub fn stack(&self, name: &'static str) -> Builder {
        let builder = Stack::builder(name);
        match self.broken {
            Some(rule) => builder.faulty(Some(rule)),
            None => builder,
        }
    }

    /// Notes a figure that tells how hard the trial was, or how well the system did.
    pub fn figure(&mut self, name: &'static str, value: impl Display) {
        self.figures.push((name, value.to_string()));
    }

    /// Notes a number that must be zero.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn zero(&mut self, name: &'static str, number: usize) {
        self.figure(name, number);
        assert_eq!(number, 0, "{name}");
    }

    /// What was measured, or that nothing had to be, as one line.
    pub fn summary(&self) -> String {
        let figures = self.figures.iter();
        let parts: Vec<String> = figures
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        match parts.is_empty() {
            true => "kept".to_owned(),
            false => parts.join(", "),
        }
    }
}

/// Runs a trial to its end, whatever that is.
///
/// # Errors
/// What it complained of.
pub fn outcome(trial: &Trial, run: &mut Run) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (trial.body)(run))).map_err(|panic| text_of(&*panic))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
