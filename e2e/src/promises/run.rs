//! One run of a trial: its seed, its length and its measurements.

use std::{fmt::Display, time::Duration};

use rand::{SeedableRng, rngs::StdRng};

use crate::stack::{Builder, Stack};

/// Length of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Seconds, in `make test`.
    Quick,
    /// As long as the promise requires, in `make chaos`.
    Full {
        /// Duration of `everything_at_random`.
        everything: Duration,
    },
}

/// One run of a trial.
#[derive(Debug)]
pub struct Run {
    /// Seed of all random choices. The same seed makes the same choices.
    pub seed: u64,
    scale: Scale,
    broken: Option<&'static str>,
    figures: Vec<(&'static str, String)>,
}

impl Run {
    /// A run with that seed and length.
    pub fn new(seed: u64, scale: Scale) -> Self {
        Self {
            seed,
            scale,
            broken: None,
            figures: Vec::new(),
        }
    }

    /// A short run with programs that break `invariant`. The trial must fail.
    pub fn breaking(seed: u64, invariant: &'static str) -> Self {
        Self {
            broken: Some(invariant),
            ..Self::new(seed, Scale::Quick)
        }
    }

    /// Returns the random number generator of this run.
    pub fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// Returns the first value in a short run, the second in a full run.
    pub fn choose<T>(&self, quick: T, full: T) -> T {
        match self.scale {
            Scale::Quick => quick,
            Scale::Full { .. } => full,
        }
    }

    /// Duration of `everything_at_random` in a full run.
    pub(super) fn everything(&self) -> Option<Duration> {
        match self.scale {
            Scale::Quick => None,
            Scale::Full { everything } => Some(everything),
        }
    }

    /// Whether the trial asserts limits in seconds. It does so only in a full run, which has the
    /// machine to itself.
    pub fn is_full(&self) -> bool {
        matches!(self.scale, Scale::Full { .. })
    }

    /// Returns the builder of a system for a trial.
    pub fn stack(&self, name: &'static str) -> Builder {
        let builder = Stack::builder(name);
        match self.broken {
            Some(invariant) => builder.breaking(invariant),
            None => builder,
        }
    }

    /// Records a figure: how hard the trial was, or how well the system did.
    pub fn figure(&mut self, name: &'static str, value: impl Display) {
        self.figures.push((name, value.to_string()));
    }

    /// Records a number that must be zero.
    ///
    /// # Panics
    /// It is not zero.
    #[track_caller]
    pub fn zero(&mut self, name: &'static str, number: usize) {
        self.figure(name, number);
        assert_eq!(number, 0, "{name}");
    }

    /// Returns the figures as one line, or `passed` if there are none.
    pub fn summary(&self) -> String {
        let figures = self.figures.iter();
        let parts: Vec<String> = figures
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        match parts.is_empty() {
            true => "passed".to_owned(),
            false => parts.join(", "),
        }
    }
}
