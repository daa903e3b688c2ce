//! Combines all parts of a run into one table, one file and one page.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use chrono::{SecondsFormat, Utc};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::{
    machine::{self, Machine},
    page,
    part::Part,
    table,
};

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
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Latest => &[
                "ingest", "known", "reads", "latency", "memory", "start", "cold", "repair",
            ],
            Self::Large => &["growth", "workers"],
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Latest => "latest.json",
            Self::Large => "large.json",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    kind: Kind,
    /// Folder with the parts, one `NAME.json` each.
    #[arg(long)]
    parts: PathBuf,
    /// Folder for the results.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

/// Results of one run on one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// End of the run in UTC, as RFC 3339.
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    pub(crate) parts: Vec<Part>,
}

impl Run {
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

    /// Returns the part with this name.
    pub(crate) fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }
}

/// Writes the results, and prints the table.
///
/// # Errors
/// If there is no part, or the results cannot be written.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let paths = options.kind.parts().iter();
    let parts = paths
        .map(|name| options.parts.join(format!("{name}.json")))
        .filter(|path| path.exists())
        .map(|path| Part::read(&path))
        .collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!parts.is_empty(), "no part in {}", options.parts.display());
    let run = Run {
        date: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        commit: machine::commit()?,
        machine: Runtime::new()?.block_on(Machine::this())?,
        parts,
    };
    fs::create_dir_all(&options.results)?;
    let text = serde_json::to_string_pretty(&run)?;
    fs::write(options.results.join(options.kind.file()), text + "\n")?;
    page::write(&options.results)?;
    println!("{}\n", run.machine.summary());
    table::print(run.parts.iter().flat_map(|part| &part.figures));
    let steals = run
        .parts
        .iter()
        .filter_map(|part| Some(format!("{} {}", part.name, part.steal()?)));
    println!("\n{}", steals.collect::<Vec<_>>().join(", "));
    Ok(())
}
