//! The `worker` binary with the injected faults of `shared::fault`, for tests.

use clap::Parser;
use worker::cli::{self, Cli};

fn main() -> anyhow::Result<()> {
    cli::run(Cli::parse())
}
