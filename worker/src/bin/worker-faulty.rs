//! The `worker` binary with the injected faults of `shared::fault`, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::cli::run()
}
