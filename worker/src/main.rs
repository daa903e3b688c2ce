//! The `worker` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::cli::run()
}
