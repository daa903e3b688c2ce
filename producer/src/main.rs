//! Generates orders and sends them to Kafka.
//!
//! | module | responsibility |
//! |---|---|
//! | `input`, `order_file`, `uids` | what a file or standard input holds |
//! | `source`, `generate` | which records to send |
//! | `send`, `erase` | when to send them, and what to report |
//! | `kafka` | how to send them |
//! | `verify` | reads the orders back from the api |

// `println!` panics if the reader of a pipe is gone; `runtime::output` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod erase;
mod generate;
mod input;
mod interrupt;
mod kafka;
mod order_file;
mod progress;
mod send;
mod source;
mod uids;
mod verify;

use std::process::ExitCode;

use shared::{
    runtime::{
        command, dumps,
        process::{self, Program},
    },
    telemetry,
};

use crate::cli::{Cli, Command};
use crate::interrupt::Interrupt;

const PROGRAM: Program = Program {
    name: "producer",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    dumps::forbid();
    process::exit_code(run(command::parse(&PROGRAM)))
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Generate(options) => generate::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Send(options) => observed(|interrupt| send::run(&options, interrupt)),
        Command::Erase(options) => {
            // Before signals are handled: Ctrl-C ends the program while it waits for an answer.
            let erasure = erase::prepare(&options)?;
            observed(|interrupt| erasure.run(interrupt))
        }
        Command::Completions(completions) => completions
            .print::<Cli>(&PROGRAM)
            .map(|()| ExitCode::SUCCESS),
    }
}

/// Runs `work` on this thread. Meanwhile tokio handles signals and exports traces.
fn observed(work: impl FnOnce(&Interrupt) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let telemetry = telemetry::init(PROGRAM.name, PROGRAM.version)?;
    let outcome = work(&Interrupt::listen());
    telemetry.flush();
    outcome
}
