//! `nowbridge ledger list`: the keys of a ledger, counted by state. Read only: the bridge may be running.

use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;
use serde_json::json;

use super::super::args::{self, ListArgs, RouteArgs};
use super::super::instant;
use super::super::route_change::Target;
use crate::bridge::stores;
use crate::ledger::admin::{self, Filter, KeyState, Line, Site, Summary};

/// Prints the selected keys and the counts.
///
/// # Errors
/// The ledger can't be read, or an argument is no instant.
pub async fn list(route: &RouteArgs, which: ListArgs) -> Result<()> {
    let target = Target::load(route)?;
    let site = stores::ledger(&target.config, target.sink()?, false).await?;
    let filter = filter(&which)?;
    let mut summary = Summary::default();
    let mut shown = 0;
    let mut selected = 0;
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(200));
    for partition in 0..site.partitions {
        let (bar, partitions) = (spinner.clone(), site.partitions);
        let progress = move |read| {
            bar.set_message(format!("reading the ledger: partition {} of {partitions}, {read} records", partition + 1));
        };
        let survey = site.survey(partition, progress).await?;
        for line in admin::lines(partition, &survey, &site.states, &filter, &mut summary) {
            selected += 1;
            if which.json {
                println!("{}", as_json(&line));
            } else if shown < which.limit {
                if shown == 0 {
                    println!("{:<9} {:<12} {:<20} {:>9}  key", "state", "ticket", "written", "partition");
                }
                shown += 1;
                spinner.suspend(|| println!("{}", as_text(&line)));
            }
        }
    }
    spinner.finish_and_clear();
    if !which.json {
        if selected > shown {
            println!("and {} more; raise --limit to list them", selected - shown);
        }
        print_summary(&site, &summary);
    }
    Ok(())
}

fn filter(which: &ListArgs) -> Result<Filter> {
    Ok(Filter {
        key: which.key.clone(),
        state: which.state.map(|state| match state {
            args::KeyState::Open => KeyState::Open,
            args::KeyState::Resolved => KeyState::Resolved,
            args::KeyState::Closed => KeyState::Closed,
            args::KeyState::Parked => KeyState::Parked,
            args::KeyState::Ambiguous => KeyState::Ambiguous,
        }),
        before: which.before.as_deref().map(instant::parse).transpose()?,
    })
}

fn as_json(line: &Line) -> serde_json::Value {
    json!({
        "key": &*line.key, "partition": line.partition, "state": line.state.name(), "number": line.number,
        "sys_id": line.sys_id, "generation": line.generation, "ticket_state": line.ticket_state,
        "written": (line.written_at > 0).then(|| instant::show(line.written_at)), "reason": line.reason,
    })
}

fn as_text(line: &Line) -> String {
    let written = if line.written_at > 0 { instant::show(line.written_at) } else { String::new() };
    let reason = line.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{:<9} {:<12} {written:<20} {:>9}  {}{reason}", line.state.name(), line.number, line.partition, line.key)
}

fn print_summary(site: &Site, summary: &Summary) {
    let count = |state| summary.keys.get(&state).copied().unwrap_or(0);
    let all: usize = summary.keys.values().sum();
    let parts: Vec<String> =
        KeyState::ALL.into_iter().map(|state| format!("{} {}", count(state), state.name())).collect();
    println!("\n{} keys in {} of {} partitions: {}", all, site.ledger, site.partitions, parts.join(", "));
    if summary.unclaimed > 0 {
        println!(
            "{} partitions have no header: no bridge has ever owned them, or the header was lost",
            summary.unclaimed
        );
    }
    if summary.incomplete > 0 {
        println!(
            "{} partitions may lack keys: the bridge looks every unknown key up in the instance",
            summary.incomplete
        );
    }
}
