//! Results of a part of the measurement, and their goals.

use std::{fs, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::summary::Summary;

/// Limit that a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// One row of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Name of the quantity.
    pub(crate) what: String,
    /// Unit of `ours` and `floor`.
    pub(crate) unit: String,
    /// One value per round.
    pub(crate) ours: Vec<f64>,
    /// Values of the floor in the same rounds; empty if there is no floor.
    pub(crate) floor: Vec<f64>,
    /// Goal for the ratio if there is a floor, else for `ours`.
    pub(crate) goal: Option<Goal>,
}

impl Figure {
    /// Creates a figure. `ours` must hold at least one value.
    pub(crate) fn new(what: &str, unit: &str, ours: impl IntoIterator<Item = f64>) -> Self {
        Self {
            what: what.to_owned(),
            unit: unit.to_owned(),
            ours: ours.into_iter().collect(),
            floor: Vec::new(),
            goal: None,
        }
    }

    /// Sets the values of the floor. `floor` must hold as many values as `ours`.
    pub(crate) fn floor(mut self, floor: impl IntoIterator<Item = f64>) -> Self {
        self.floor = floor.into_iter().collect();
        self
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Returns the ratio of each round, or `None` without a floor.
    pub(crate) fn ratios(&self) -> Option<Vec<f64>> {
        let pairs = self.ours.iter().zip(&self.floor);
        (!self.floor.is_empty()).then(|| pairs.map(|(ours, floor)| ours / floor).collect())
    }

    /// Returns the values that the goal applies to.
    pub(crate) fn judged(&self) -> Vec<f64> {
        self.ratios().unwrap_or_else(|| self.ours.clone())
    }

    /// Whether the median reaches the goal; `None` without a goal.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        let median = Summary::of(self.judged()).median;
        Some(match self.goal? {
            Goal::AtLeast(least) => median >= least,
            Goal::AtMost(most) => median <= most,
        })
    }
}

/// Result of one command of `bench`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Name of the command.
    pub(crate) name: String,
    /// Method, in a sentence or two.
    pub(crate) method: String,
    pub(crate) figures: Vec<Figure>,
    /// Share of the wanted CPU time that the host gave to other guests (steal), from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stolen: Option<f64>,
}

impl Part {
    pub(crate) fn new(name: &str, method: &str, figures: Vec<Figure>) -> Self {
        Self {
            name: name.to_owned(),
            method: method.to_owned(),
            figures,
            stolen: None,
        }
    }

    /// Describes the steal in words; `None` if it was not measured.
    pub(crate) fn steal(&self) -> Option<String> {
        let percent = self.stolen? * 100.0;
        Some(format!("steal {percent:.0} %"))
    }

    /// Reads a part from a JSON file.
    ///
    /// # Errors
    /// If the file is missing or does not hold a part.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Writes the part to a JSON file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ratio_of_the_rounds_is_compared_with_the_floor() {
        let figure = Figure::new("x", "1/s", [10.0, 20.0, 90.0]).floor([10.0, 10.0, 10.0]);
        assert_eq!(figure.judged(), [1.0, 2.0, 9.0]);
        assert_eq!(figure.is_reached(), None);
        let reached = |goal| figure.clone().goal(goal).is_reached();
        assert_eq!(reached(Goal::AtLeast(2.0)), Some(true));
        assert_eq!(reached(Goal::AtLeast(2.1)), Some(false));
        assert_eq!(reached(Goal::AtMost(1.9)), Some(false));
    }

    #[test]
    fn without_a_floor_the_value_is_compared_with_its_target() {
        let figure = Figure::new("x", "ms", [3.0]).goal(Goal::AtMost(3.0));
        assert_eq!(figure.ratios(), None);
        assert_eq!(figure.is_reached(), Some(true));
    }
}
