//! The command line: arguments, and one file per command that parses, calls the library and prints.

#![expect(clippy::print_stdout, reason = "what a command prints is its result")]

pub mod args;
mod check;
mod dead_letters;
mod demo;
mod explain;
mod instant;
mod ledger;
mod publish;
mod reprocess;
mod resume;
mod resync;
mod route_change;
mod run;
mod simulate;
mod topics;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::config;
use crate::runtime::logging;

pub use args::Cli;
use args::{Check, Command, ConfigCommand, RouteArgs, Topics};

/// Runs a command; prints an error once, with its causes.
pub fn main(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            // The one place where an error leaves the process; the log may be off or elsewhere.
            eprintln!("nowbridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    // Commands whose output is for people log errors only, unless told otherwise.
    let logs = matches!(cli.command, Command::Run(_) | Command::Simulate(_) | Command::Resume(_) | Command::Config(_));
    let filter = cli.log.as_deref().unwrap_or(if logs { "info" } else { "error,librdkafka=off,rdkafka=off" });
    logging::start(filter, cli.log_format.into())?;
    match cli.command {
        Command::Config(ConfigCommand::Check { file }) => check_config(&file),
        Command::Config(ConfigCommand::Example) => {
            print!("{}", config::EXAMPLE);
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain { name } => {
            explain::explain(name.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Resync { route, key, rate, yes } => done(route_change::run(&route, yes, resync::Resync { key, rate })),
        Command::Reprocess { route, from, include_closed, yes } => {
            done(route_change::run(&route, yes, reprocess::Reprocess { from, include_closed }))
        }
        Command::Run(file) => done(run::run(config::load(&file.config)?)),
        Command::Simulate(options) => done(simulate::simulate(options)),
        Command::Publish(options) => done(publish::publish(options)),
        Command::Topics(Topics::Create { file, print, partitions }) => {
            done(topics::create(config::load(&file.config)?, print, partitions))
        }
        Command::Ledger(command) => done(ledger::run(command)),
        Command::DeadLetters(command) => passed(runtime()?.block_on(dead_letters::run(command))?),
        Command::Resume(RouteArgs { file, route }) => done(resume::resume(config::load(&file.config)?, route)),
        Command::Demo(options) => passed(runtime()?.block_on(demo::demo(options))?),
        Command::Check(Check { file, write_probe }) => {
            passed(runtime()?.block_on(check::check(config::load(&file.config)?, write_probe))?)
        }
    }
}

fn check_config(file: &Path) -> Result<ExitCode> {
    let config = config::load(file)?;
    let (sinks, sources) = (config.sinks.len(), config.sources.len());
    println!("{}: {sinks} sink routes, {sources} source routes, no errors", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Exit code of a command that can find something wrong without failing itself.
fn passed(passed: bool) -> Result<ExitCode> {
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a command's future to its end on a runtime of its own.
fn done(command: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    runtime()?.block_on(command)?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // One thread carries more than an instance accepts (10,000 requests a second). Two wake each other all day,
        // which costs a tenth of an idle bridge's CPU. Blocking work, such as reading the ledger, has its own threads.
        .worker_threads(1)
        .thread_name("nowbridge")
        .enable_all()
        .build()
        .context("can't start the async runtime")
}
