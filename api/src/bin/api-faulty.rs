//! The program `api` with the faults of `shared::fault` compiled in, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    api::cli::run()
}
