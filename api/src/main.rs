//! The program `api`; the library of the same name holds the code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Every response allocates and frees a few blocks of one to eight kilobytes, for which glibc's
/// allocator has no fast path.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    api::cli::run()
}
