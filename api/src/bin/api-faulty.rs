//! The `api` binary with the faults of `shared::fault` in it, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    api::cli::run()
}
