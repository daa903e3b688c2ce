//! The `worker` binary.

use clap::Parser;
use worker::cli::{self, Cli};

fn main() -> anyhow::Result<()> {
    cli::run(Cli::parse())
}
