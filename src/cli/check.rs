//! `nowbridge check`: runs all checks and prints the report.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;

use crate::bridge::{clients, topics};
use crate::check::{self, CheckContext, Options, Progress};
use crate::config::Config;

/// Runs all checks, and prints the report. Returns true if none failed.
///
/// # Errors
/// None: the report contains all failures.
pub async fn check(config: Config, write_probe: bool) -> Result<bool> {
    let client = |instance: &crate::config::Instance, table: &str, state: &str| {
        clients::client(instance, table, state).map_err(|error| format!("{error:#}"))
    };
    let layout = |inputs: &[i32]| {
        let layout = topics::layout(&config, inputs);
        layout.inputs.into_iter().chain(layout.own).collect()
    };
    let context = CheckContext {
        config: &config,
        kafka: clients::kafka(&config.kafka),
        client: &client,
        topics: &layout,
        strictness: topics::strictness(&config, false),
        options: Options { write_probe, kafka_timeout: Duration::from_secs(10) },
    };
    let is_terminal = std::io::stderr().is_terminal();
    let mut progress = |step: Progress<'_>| {
        if let (true, Progress::Started(target)) = (is_terminal, step) {
            eprintln!("checking {target}…");
        }
    };
    let report = check::check(&context, &mut progress).await;
    println!("{report}");
    Ok(report.is_ok())
}
