//! Generates orders and sends them to Kafka.
//!
//! | module | responsibility |
//! |---|---|
//! | `source`, `order_file`, `generate` | which records to send |
//! | `send` | when to send them |
//! | `kafka` | how to send them |
//! | `verify` | reads the orders back from the api |

mod cli;
mod generate;
mod interrupt;
mod kafka;
mod order_file;
mod progress;
mod send;
mod source;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use shared::{runtime::process, telemetry};

use crate::cli::{Cli, Command};
use crate::interrupt::Interrupt;

fn main() -> ExitCode {
    process::exit_code(run())
}

fn run() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Generate(options) => generate::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Send(options) => observed(|interrupt| send::orders(options, interrupt)),
        Command::Erase(options) => observed(|interrupt| send::erasures(options, interrupt)),
    }
}

/// Runs `work` on this thread. Meanwhile tokio handles signals and exports traces.
fn observed(work: impl FnOnce(&Interrupt) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let telemetry = telemetry::init("producer", env!("CARGO_PKG_VERSION"))?;
    let outcome = work(&Interrupt::listen());
    telemetry.flush();
    outcome
}
