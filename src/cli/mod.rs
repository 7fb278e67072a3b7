//! The command line: the arguments, and one file per command, which calls the library and prints the result.

#![expect(clippy::print_stdout, reason = "the output of a command is its result")]

pub mod args;
mod check;
mod dead_letters;
mod demo;
mod explain;
mod ledger;
mod publish;
mod reprocess;
mod resume;
mod resync;
mod route_change;
mod run;
mod simulate;
mod time_arguments;
mod topics;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::config;
use crate::runtime::logging;

pub use args::Cli;
use args::{Check, Command, ConfigCommand, RouteArgs, Topics};

/// Runs a command. Prints an error once, with its causes.
pub fn main(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            // The only place that prints an error of the process. The log may be off or redirected.
            eprintln!("nowbridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    // By default, commands that print a result log errors only.
    let logs_info =
        matches!(cli.command, Command::Run(_) | Command::Simulate(_) | Command::Resume(_) | Command::Config(_));
    let filter = cli.log.as_deref().unwrap_or(if logs_info { "info" } else { "error,librdkafka=off,rdkafka=off" });
    logging::init(filter, cli.log_format.into())?;
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
        Command::Resync { route, key, rate, yes } => {
            block_on(route_change::run(&route, yes, resync::Resync { key, rate }))
        }
        Command::Reprocess { route, from, include_closed, yes } => {
            block_on(route_change::run(&route, yes, reprocess::Reprocess { from, include_closed }))
        }
        Command::Run(file) => block_on(run::run(config::load(&file.config)?)),
        Command::Simulate(options) => block_on(simulate::simulate(options)),
        Command::Publish(options) => block_on(publish::publish(options)),
        Command::Topics(Topics::Create { file, print, partitions }) => {
            block_on(topics::create(config::load(&file.config)?, print, partitions))
        }
        Command::Ledger(command) => block_on(ledger::run(command)),
        Command::DeadLetters(command) => exit_code(runtime()?.block_on(dead_letters::run(command))?),
        Command::Resume(RouteArgs { file, route }) => block_on(resume::resume(config::load(&file.config)?, route)),
        Command::Demo(options) => exit_code(runtime()?.block_on(demo::demo(options))?),
        Command::Check(Check { file, write_probe }) => {
            exit_code(runtime()?.block_on(check::check(config::load(&file.config)?, write_probe))?)
        }
    }
}

fn check_config(file: &Path) -> Result<ExitCode> {
    let config = config::load(file)?;
    let (sinks, sources) = (config.sinks.len(), config.sources.len());
    println!("{}: {sinks} sink routes, {sources} source routes, no errors", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Returns the exit code of a command whose result can be negative although the command succeeded.
fn exit_code(passed: bool) -> Result<ExitCode> {
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the future of a command to completion.
fn block_on(command: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    runtime()?.block_on(command)?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // One thread can send more requests than an instance accepts (10,000 per second). Two threads wake each other,
        // which costs a tenth of an idle bridge's CPU. Blocking work, such as reading the ledger, has its own threads.
        .worker_threads(1)
        .thread_name("nowbridge")
        .enable_all()
        .build()
        .context("can't start the async runtime")
}
