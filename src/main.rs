//! The nowbridge command: parse, run, print the error chain once, set the exit code.

use std::process::ExitCode;

use clap::Parser;
use nowbridge::cli::Cli;

fn main() -> ExitCode {
    nowbridge::app::main(Cli::parse())
}
