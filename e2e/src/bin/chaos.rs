//! Runs the trials of every promise and prints their results.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use e2e::promises::{Outcome, PROMISES, Run, SABOTAGES, Sabotage, Scale, markdown};

/// Markers in the page. The results replace the text between them.
const MARKS: [&str; 2] = ["<!-- begin: make chaos -->\n", "<!-- end: make chaos -->"];

/// Runs the trials of every promise, at full length or as short as in `make test`. Needs the
/// environment of `scripts/services env`.
#[derive(Debug, Parser)]
struct Cli {
    /// Seed of all random choices [default: a new one for each run]
    #[arg(long)]
    seed: Option<u64>,
    /// Run short trials, as `make test` does
    #[arg(long)]
    quick: bool,
    /// Number of trials that run at the same time; on a busy machine the measured times mean less
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Minutes that `everything_at_random` runs at full length
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Page that receives the table of results, between its markers
    #[arg(long)]
    page: Option<PathBuf>,
    /// Trials and rules to run: those whose name contains one of these; all if none is given
    only: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    // Fails before an hour of trials, not after it.
    cli.page.as_deref().map(split).transpose()?;
    let seed = cli.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let scale = match cli.quick {
        true => Scale::Quick,
        false => Scale::Full {
            everything: Duration::from_secs(cli.minutes * 60),
        },
    };
    let jobs = chosen(seed, scale, &cli.only);
    ensure!(!jobs.is_empty(), "no trial has such a name");
    println!("seed {seed}");
    let outcomes = try_all(&jobs, cli.jobs);
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
    Ok(match broken {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// A trial or a broken rule: its name and the function that runs it.
type Job = (&'static str, Box<dyn Fn() -> Result<String, String> + Sync>);

/// Returns the trials and the broken rules whose name contains one of `only`.
fn chosen(seed: u64, scale: Scale, only: &[String]) -> Vec<Job> {
    let trials = PROMISES.iter().flat_map(|promise| promise.trials);
    let trials = trials.map(|trial| -> Job {
        let try_it = move || {
            let mut run = Run::new(seed, scale);
            trial.run(&mut run).map(|()| run.summary())
        };
        (trial.name, Box::new(try_it))
    });
    let sabotages = SABOTAGES.iter().map(|sabotage| -> Job {
        let Sabotage {
            invariant, trial, ..
        } = sabotage;
        let detect = move || {
            println!("          {invariant} is broken on purpose: {trial} must fail");
            sabotage.is_detected(seed).map(|()| "detected".to_owned())
        };
        (*invariant, Box::new(detect))
    });
    let chosen =
        |(name, _): &Job| only.is_empty() || only.iter().any(|only| name.contains(only.as_str()));
    trials.chain(sabotages).filter(chosen).collect()
}

fn try_all(jobs: &[Job], at_once: u16) -> Vec<Outcome> {
    // The last trial takes longest, so it starts first.
    let left = Mutex::new(jobs.iter().rev());
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = lock(&left).next();
                    let Some((name, job)) = next else { break };
                    let started = Instant::now();
                    let outcome = Outcome {
                        name,
                        result: job(),
                        took: started.elapsed(),
                    };
                    println!("{outcome}");
                    lock(&outcomes).push(outcome);
                }
            });
        }
    });
    outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Ignores poisoning: code that holds one of these locks does not panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the text before and after the markers of a page.
fn split(page: &std::path::Path) -> anyhow::Result<[String; 2]> {
    let text = fs::read_to_string(page).with_context(|| format!("{}", page.display()))?;
    let parts = text.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some([before.to_owned(), after.to_owned()])
    });
    parts.with_context(|| format!("{} has no lines {MARKS:?}", page.display()))
}
