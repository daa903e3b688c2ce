//! The `worker` binary with the faults of `shared::fault` in it, for tests.

use clap::Parser;
use worker::cli::{self, Cli};

fn main() -> anyhow::Result<()> {
    cli::run(Cli::parse())
}
