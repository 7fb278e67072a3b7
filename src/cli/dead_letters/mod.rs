//! `nowbridge dead-letters`: lists rejected records, shows one, redrives them into the input, or discards them.

mod discard;
mod list;
mod redrive;
mod show;

use std::time::Duration;

use anyhow::Result;

use super::args::{DeadLetterArgs, DeadLetters, RouteArgs};
use super::route_change::{self, Target};
use super::time_arguments;
use crate::bridge::stores;
use crate::dead_letters::{DeadLetterStore, Filter, RedriveLimits, Selection};
use crate::error_catalog;

/// Runs a dead-letter command. Returns false if redriven letters were rejected again.
///
/// # Errors
/// The configuration has errors, a filter is malformed, or the cluster does not respond.
pub(super) async fn run(command: DeadLetters) -> Result<bool> {
    match command {
        DeadLetters::List { route, filter, limit, json } => list::list(&open(&route)?, filter, limit, json).await?,
        DeadLetters::Show { route, letter } => show::show(&open(&route)?, &letter).await?,
        DeadLetters::Redrive { route, filter, dry_run, rate, max_redrives, rounds, timeout } => {
            let limits = RedriveLimits { rate, max_redrives, rounds, timeout: Duration::from_secs(timeout) };
            return redrive::redrive(&Target::load(&route)?, filter, dry_run, limits).await;
        }
        DeadLetters::Discard { route, filter, yes } => {
            let filter = parse_filter(filter)?;
            route_change::run(&route, yes, discard::Discard { filter }).await?;
        }
    }
    Ok(true)
}

fn open(route: &RouteArgs) -> Result<DeadLetterStore> {
    let target = Target::load(route)?;
    Ok(stores::dead_letters(&target.config, target.sink()?))
}

/// Parses the filter. An error number such as SN-006 selects all codes of its page.
fn parse_filter(args: DeadLetterArgs) -> Result<Filter> {
    let codes = args.code.into_iter().flat_map(|code| match error_catalog::find(&code) {
        Some(page) if !page.codes.contains(&code.as_str()) => page.codes.iter().map(|&code| code.to_owned()).collect(),
        _ => vec![code],
    });
    let parse_time = |text: Option<String>| text.map(|text| time_arguments::parse(&text)).transpose();
    Ok(Filter {
        codes: codes.collect(),
        reason: args.reason,
        key: args.key,
        since: parse_time(args.since)?,
        until: parse_time(args.until)?,
    })
}

/// Prints how many letters are selected.
fn print_selection(selection: &Selection) {
    let (keys, keyless) = (selection.keys().count(), selection.keyless());
    println!("{} letters selected: those of {keys} keys, and {keyless} without a key", selection.len());
}

/// Returns at most `max_length` characters, on one line.
fn shorten(text: &str, max_length: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max_length).collect();
    if text.chars().count() > max_length { format!("{line}…") } else { line }
}
