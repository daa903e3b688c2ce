//! `api`: see the library of the same name.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Every answer allocates and frees a few blocks of one to eight kilobytes, which the allocator of glibc has no fast path
/// for.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    api::cli::run()
}
