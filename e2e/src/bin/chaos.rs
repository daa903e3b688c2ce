//! Tries to break every promise, and prints a table of what came of it.

#![allow(clippy::print_stdout, reason = "its output is a table")]

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use e2e::promises::{PROMISES, Run, SABOTAGES, Scale, outcome};

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
    /// Trials whose name contains one of these; all without any
    only: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(rand::random);
    let scale = match cli.quick {
        true => Scale::Quick,
        false => Scale::Full,
    };
    let chosen =
        |name: &str| cli.only.is_empty() || cli.only.iter().any(|only| name.contains(only));
    eprintln!("seed {seed}");
    println!("| promise | trial | time | figures |\n|---|---|---|---|");
    let mut broken = Vec::new();
    for promise in PROMISES {
        for trial in promise.trials.iter().filter(|trial| chosen(trial.name)) {
            let mut run = Run::new(seed, scale);
            let started = Instant::now();
            let result = outcome(trial, &mut run);
            let seconds = started.elapsed().as_secs();
            let verdict = match &result {
                Ok(()) => run.summary(),
                Err(complaint) => {
                    broken.push(trial.name.to_owned());
                    format!(
                        "**broken**: {}",
                        complaint.lines().next().unwrap_or_default()
                    )
                }
            };
            println!(
                "| {} | `{}` | {seconds} s | {verdict} |",
                promise.number, trial.name
            );
        }
    }
    println!("\n| rule broken on purpose | noticed by | time |\n|---|---|---|");
    for sabotage in SABOTAGES
        .iter()
        .filter(|sabotage| chosen(sabotage.rule.as_str()))
    {
        let rule = sabotage.rule.as_str();
        let started = Instant::now();
        let result = sabotage.is_noticed(seed);
        let seconds = started.elapsed().as_secs();
        let verdict = match result {
            Ok(()) => format!("`{}`", sabotage.trial),
            Err(error) => {
                broken.push(rule.to_owned());
                format!(
                    "**not noticed**: {}",
                    error.lines().next().unwrap_or_default()
                )
            }
        };
        println!("| `{rule}` | {verdict} | {seconds} s |");
    }
    println!("\nseed {seed}");
    match broken.is_empty() {
        true => ExitCode::SUCCESS,
        false => {
            eprintln!("broken: {}", broken.join(", "));
            ExitCode::FAILURE
        }
    }
}
