//! `nowbridge dead-letters`: lists rejected records, shows one, redrives them into the input, or discards them.

mod discard;
mod list;
mod redrive;
mod show;

use anyhow::Result;

use super::args::{DeadLetters, LetterArgs, RouteArgs};
use super::instant;
use super::route_change::{self, Target};
use crate::bridge::stores;
use crate::dead_letters::{Filter, LetterStore, Selection};
use crate::error_catalog;
use crate::model::RedriveId;

/// Runs a dead-letter command; false where letters remain that should have been applied.
///
/// # Errors
/// The configuration has errors, a filter is malformed, or the cluster does not answer.
pub(super) async fn run(command: DeadLetters) -> Result<bool> {
    match command {
        DeadLetters::List { route, which, limit, json } => list::list(&open(&route)?, which, limit, json).await?,
        DeadLetters::Show { route, letter } => show::show(&open(&route)?, &letter).await?,
        DeadLetters::Redrive { route, which, dry_run, rate, max_redrives, rounds, timeout } => {
            let limits = redrive::Limits { rate, max_redrives, rounds, timeout };
            return redrive::redrive(&Target::load(&route)?, which, dry_run, limits).await;
        }
        DeadLetters::Discard { route, which, yes } => {
            let filter = filter(which)?;
            route_change::run(&route, yes, discard::Discard { filter }).await?;
        }
    }
    Ok(true)
}

fn open(route: &RouteArgs) -> Result<LetterStore> {
    let target = Target::load(route)?;
    Ok(stores::dead_letters(&target.config, target.sink()?))
}

/// The filter that the arguments describe. An error number such as SN-006 selects every code of its page.
fn filter(args: LetterArgs) -> Result<Filter> {
    let codes = args.code.into_iter().flat_map(|code| match error_catalog::find(&code) {
        Some(page) if !page.codes.contains(&code.as_str()) => page.codes.iter().map(|&code| code.to_owned()).collect(),
        _ => vec![code],
    });
    let instant = |text: Option<String>| text.map(|text| instant::parse(&text)).transpose();
    Ok(Filter {
        codes: codes.collect(),
        reason: args.reason,
        key: args.key,
        since: instant(args.since)?,
        until: instant(args.until)?,
    })
}

fn new_id() -> RedriveId {
    RedriveId(fastrand::u64(..))
}

/// Prints how many letters are selected.
fn print_selection(selection: &Selection) {
    let keys = selection.keys().count();
    let keyless = selection.groups.len() - keys;
    println!("{} letters selected: those of {keys} keys, and {keyless} without a key", selection.len());
}

/// At most `most` characters, on one line.
fn shorten(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    if text.chars().count() > most { format!("{line}…") } else { line }
}
