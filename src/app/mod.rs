//! The commands: configuration in, clients and routes out, supervised. Wiring only; every decision is elsewhere.

#![expect(clippy::print_stdout, reason = "what a command prints is its result")]

mod again;
mod check;
mod clients;
mod dead_letters;
mod demo;
mod explain;
mod ledger;
mod publish;
mod rekey;
mod renamed;
mod resume;
mod run;
mod simulate;
mod topics;
mod upkeep;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::{Check, Cli, Command, ConfigCommand, RouteArgs, Topics};
use crate::{config, telemetry};

/// Runs a command; prints what went wrong once, with its causes.
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
    let quiet = matches!(
        cli.command,
        Command::Demo(_)
            | Command::Check(_)
            | Command::Publish(_)
            | Command::Topics(_)
            | Command::DeadLetters(_)
            | Command::Ledger(_)
            | Command::Explain { .. }
            | Command::Resync { .. }
            | Command::Reprocess { .. }
    );
    // The log of a command whose output is for people would only be in the way.
    let filter = cli.log.as_deref().unwrap_or(if quiet { "error,librdkafka=off,rdkafka=off" } else { "info" });
    telemetry::start(filter, cli.log_format)?;
    match cli.command {
        Command::Config(ConfigCommand::Check { file }) => {
            let config = config::load(&file)?;
            println!(
                "{}: {} sink and {} source routes, nothing wrong",
                file.display(),
                config.sinks.len(),
                config.sources.len()
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Resync { route, key, rate, yes } => done(again::resync(route, key, rate, yes)),
        Command::Reprocess { route, from, finished, yes } => done(again::reprocess(route, from, finished, yes)),
        Command::Explain { name } => {
            explain::explain(name.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Config(ConfigCommand::Example) => {
            print!("{}", config::EXAMPLE);
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(file) => done(run::run(config::load(&file.config)?)),
        Command::Simulate(options) => done(simulate::simulate(options)),
        Command::Publish(options) => done(publish::publish(options)),
        Command::Topics(Topics::Create { file, print, partitions }) => {
            done(topics::create(config::load(&file.config)?, print, partitions))
        }
        Command::Ledger(command) => done(upkeep::run(command)),
        Command::DeadLetters(command) => verdict(runtime()?.block_on(dead_letters::run(command))?),
        Command::Resume(RouteArgs { file, route }) => done(resume::resume(config::load(&file.config)?, route)),
        Command::Demo(options) => verdict(runtime()?.block_on(demo::demo(options))?),
        Command::Check(Check { file, write_probe }) => {
            verdict(runtime()?.block_on(check::check(config::load(&file.config)?, write_probe))?)
        }
    }
}

fn verdict(well: bool) -> Result<ExitCode> {
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a command's future to its end on a runtime of its own.
fn done(command: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    runtime()?.block_on(command)?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // One carries more than an instance ever takes (10,000 requests a second), and two wake each other all day: a tenth
        // of the CPU of a quiet one. What blocks, such as reading the ledger, has threads of its own.
        .worker_threads(1)
        .thread_name("nowbridge")
        .enable_all()
        .build()
        .context("can't start the runtime")
}
