//! Starts a private system, and runs a command in its environment.

use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::Parser;
use e2e::Stack;

/// Starts a private system, runs a command, then stops the system.
///
/// The variables that configure the programs hold the addresses of the system. Fails if the command
/// fails. Needs the environment of `scripts/services env`.
#[derive(Debug, Parser)]
struct Cli {
    /// Number of workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let (program, arguments) = cli.command.split_first().context("no command")?;
    let stack = Stack::builder("system").workers(cli.workers).start();
    let status = Command::new(program)
        .args(arguments)
        .envs(stack.variables(&[]))
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
