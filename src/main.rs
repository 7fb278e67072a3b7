//! The `nowbridge` command: parses the arguments and runs the command.

use std::process::ExitCode;

use clap::Parser;
use nowbridge::cli::Cli;

/// Events are many small allocations that one thread makes and another frees. The allocator of the C library is slow at
/// this: with jemalloc, an alert storm needs a fifth less CPU, and the memory is returned to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    nowbridge::cli::main(Cli::parse())
}
