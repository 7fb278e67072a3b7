//! `nowbridge check`: the doctor's report on a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;

use crate::bridge::{clients, topics};
use crate::check::{self, Options, Progress, Subject};
use crate::config::Config;

/// Checks; true where nothing failed.
///
/// # Errors
/// None so far: what goes wrong stands in the report.
pub async fn check(config: Config, write_probe: bool) -> Result<bool> {
    let client = |instance: &crate::config::Instance, table: &str, state: &str| {
        clients::client(instance, table, state).map_err(|error| format!("{error:#}"))
    };
    let layout = |inputs: &[i32]| {
        let layout = topics::layout(&config, inputs);
        layout.inputs.into_iter().chain(layout.own).collect()
    };
    let subject = Subject {
        config: &config,
        kafka: clients::kafka(&config.kafka),
        client: &client,
        topics: &layout,
        strictness: topics::strictness(&config, false),
        options: Options { write_probe, kafka_timeout: Duration::from_secs(10) },
    };
    let shows = std::io::stderr().is_terminal();
    let mut progress = |step: Progress<'_>| {
        if let (true, Progress::Looking(what)) = (shows, step) {
            eprintln!("looks at {what}…");
        }
    };
    let report = check::check(&subject, &mut progress).await;
    println!("{report}");
    Ok(report.is_well())
}
