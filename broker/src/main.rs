//! The `millrace` program.

use std::process::ExitCode;

/// Allocations of many sizes on many threads, freed on others.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    millrace_broker::command::run()
}
