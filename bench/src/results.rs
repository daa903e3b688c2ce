//! The results of a run, and the file that holds them.

use std::{fs, path::Path};

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{machine::Machine, part::Part};

/// Set of commands that form a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// `make bench`.
    Latest,
    /// `make bench-large`.
    Large,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Latest, Self::Large];

    /// Returns the names of the parts, in the order of the table.
    pub(crate) fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Latest => &[
                "ingest", "known", "reads", "access", "latency", "events", "memory", "start",
                "cold", "repair",
            ],
            Self::Large => &["growth", "workers"],
        }
    }

    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Latest => "latest.json",
            Self::Large => "large.json",
        }
    }
}

/// Results of one run on one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// End of the run in UTC, as RFC 3339.
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    pub(crate) parts: Vec<Part>,
}

impl Results {
    /// Reads the last run of `kind`, or returns `None` if there is none.
    ///
    /// # Errors
    /// If the file does not hold a run.
    pub(crate) fn last(kind: Kind, results: &Path) -> anyhow::Result<Option<Self>> {
        let path = results.join(kind.file());
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path)?;
        serde_json::from_slice(&text)
            .with_context(|| path.display().to_string())
            .map(Some)
    }
}
