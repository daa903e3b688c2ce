//! Tries to break every promise, and tells what came of it.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use e2e::promises::{Outcome, PROMISES, Run, SABOTAGES, Scale, markdown, outcome};

/// What stands between these lines of a page is replaced.
const MARKS: [&str; 2] = ["<!-- begin: make chaos -->\n", "<!-- end: make chaos -->"];

/// Tries to break what order-service promises: at full length, or as briefly as `make test` does. Needs the environment of
/// `scripts/services env`.
#[derive(Debug, Parser)]
struct Cli {
    /// Decides all that is left to chance [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// As briefly as `make test` does
    #[arg(long)]
    quick: bool,
    /// How long everything at once goes on, at full length
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// A page into which the table goes, between its marks
    #[arg(long)]
    page: Option<PathBuf>,
    /// Trials and rules whose name contains one of these; all without any
    only: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    // Before an hour of trials rather than after it.
    cli.page.as_deref().map(split).transpose()?;
    let seed = cli.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let scale = match cli.quick {
        true => Scale::Quick,
        false => Scale::Full {
            everything: Duration::from_secs(cli.minutes * 60),
        },
    };
    println!("seed {seed}");
    let outcomes = try_all(seed, scale, &cli.only);
    let table = format!("Seed {seed}.\n\n{}", markdown(&outcomes));
    println!("\n{table}");
    if let Some(page) = &cli.page {
        let [before, after] = split(page)?;
        fs::write(
            page,
            [&before, MARKS[0], "\n", &table, "\n", MARKS[1], &after].concat(),
        )?;
    }
    let broken = outcomes.iter().filter(|outcome| !outcome.is_good()).count();
    println!("{} tried, {broken} broken, seed {seed}", outcomes.len());
    ensure!(!outcomes.is_empty(), "no trial has such a name");
    Ok(match broken {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn try_all(seed: u64, scale: Scale, only: &[String]) -> Vec<Outcome> {
    let chosen =
        |name: &str| only.is_empty() || only.iter().any(|only| name.contains(only.as_str()));
    let mut outcomes = Vec::new();
    let mut note = |name, started: Instant, result| {
        let outcome = Outcome {
            name,
            took: started.elapsed(),
            result,
        };
        println!("{outcome}");
        outcomes.push(outcome);
    };
    let trials = PROMISES.iter().flat_map(|promise| promise.trials);
    for trial in trials.filter(|trial| chosen(trial.name)) {
        let (started, mut run) = (Instant::now(), Run::new(seed, scale));
        let result = outcome(trial, &mut run).map(|()| run.summary());
        note(trial.name, started, result);
    }
    for sabotage in SABOTAGES {
        let rule = sabotage.rule.as_str();
        if chosen(rule) {
            let started = Instant::now();
            note(
                rule,
                started,
                sabotage.is_noticed(seed).map(|()| "noticed".to_owned()),
            );
        }
    }
    outcomes
}

/// What stands before and behind the marks of a page.
fn split(page: &std::path::Path) -> anyhow::Result<[String; 2]> {
    let text = fs::read_to_string(page).with_context(|| format!("{}", page.display()))?;
    let parts = text.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some([before.to_owned(), after.to_owned()])
    });
    parts.with_context(|| format!("{} has no lines {MARKS:?}", page.display()))
}
