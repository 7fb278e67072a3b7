//! `nowbridge ledger list`: the keys of a ledger, counted by state. Read only: the bridge may be running.

use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;
use serde_json::json;

use super::super::args::{KeyState as StateArg, ListArgs, RouteArgs};
use super::super::route_change::Target;
use super::super::time_arguments;
use crate::bridge::stores;
use crate::ledger::admin::{self, KeyFilter, KeyState, ListedKey, RouteLedger, Summary};

/// Prints the selected keys and the counts.
///
/// # Errors
/// The ledger can't be read, or `--before` is malformed.
pub async fn list(route: &RouteArgs, args: ListArgs) -> Result<()> {
    let target = Target::load(route)?;
    let ledger = stores::ledger(&target.config, target.sink()?, false).await?;
    let filter = filter(&args)?;
    let mut summary = Summary::default();
    let mut printed = 0;
    let mut selected = 0;
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(200));
    for partition in 0..ledger.partitions {
        let (bar, partitions) = (spinner.clone(), ledger.partitions);
        let progress = move |read| {
            bar.set_message(format!("reading the ledger: partition {} of {partitions}, {read} records", partition + 1));
        };
        let content = ledger.read_partition(partition, progress).await?;
        for line in admin::list_keys(partition, &content, &ledger.states, &filter, &mut summary) {
            selected += 1;
            if args.json {
                println!("{}", as_json(&line));
            } else if printed < args.limit {
                if printed == 0 {
                    println!("{:<9} {:<12} {:<20} {:>9}  key", "state", "ticket", "written", "partition");
                }
                printed += 1;
                spinner.suspend(|| println!("{}", as_text(&line)));
            }
        }
    }
    spinner.finish_and_clear();
    if !args.json {
        if selected > printed {
            println!("and {} more; raise --limit to list them", selected - printed);
        }
        print_summary(&ledger, &summary);
    }
    Ok(())
}

fn filter(args: &ListArgs) -> Result<KeyFilter> {
    Ok(KeyFilter {
        key: args.key.clone(),
        state: args.state.map(|state| match state {
            StateArg::Open => KeyState::Open,
            StateArg::Resolved => KeyState::Resolved,
            StateArg::Closed => KeyState::Closed,
            StateArg::Parked => KeyState::Parked,
            StateArg::Ambiguous => KeyState::Ambiguous,
        }),
        before: args.before.as_deref().map(time_arguments::parse).transpose()?,
    })
}

fn as_json(line: &ListedKey) -> serde_json::Value {
    json!({
        "key": &*line.key, "partition": line.partition, "state": line.state.name(), "number": line.number,
        "sys_id": line.sys_id, "generation": line.generation, "ticket_state": line.ticket_state,
        "written": (line.written_at > 0).then(|| time_arguments::show(line.written_at)), "reason": line.reason,
    })
}

fn as_text(line: &ListedKey) -> String {
    let written = if line.written_at > 0 { time_arguments::show(line.written_at) } else { String::new() };
    let reason = line.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{:<9} {:<12} {written:<20} {:>9}  {}{reason}", line.state.name(), line.number, line.partition, line.key)
}

fn print_summary(ledger: &RouteLedger, summary: &Summary) {
    let count = |state| summary.keys.get(&state).copied().unwrap_or(0);
    let all: usize = summary.keys.values().sum();
    let parts: Vec<String> =
        KeyState::ALL.into_iter().map(|state| format!("{} {}", count(state), state.name())).collect();
    println!("\n{} keys in {} of {} partitions: {}", all, ledger.topic, ledger.partitions, parts.join(", "));
    if summary.without_header > 0 {
        println!(
            "{} partitions have no header: no bridge has owned them yet, or the header was lost",
            summary.without_header
        );
    }
    if summary.incomplete > 0 {
        println!(
            "{} partitions are incomplete: the bridge looks up every unknown key in the instance",
            summary.incomplete
        );
    }
}
