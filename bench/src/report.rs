//! Combines all parts of a run into one table, one file and one page.

use std::{fs, path::PathBuf};

use anyhow::ensure;
use chrono::{SecondsFormat, Utc};
use clap::Args;
use tokio::runtime::Runtime;

use crate::{
    machine::{self, Machine},
    page,
    part::Part,
    results::{Kind, Results},
    table,
};

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
    let run = Results {
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
