//! `nowbridge resync` and `nowbridge reprocess`: commands around `upkeep`, which does it.

use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::ledger::choose;
use super::run::reading;
use super::upkeep::{groups, place, site};
use crate::cli::RouteArgs;
use crate::ledger::StartAt;
use crate::upkeep::{self, Again, Found, Stale};
use crate::{clock, config};

/// Tickets that are named.
const NAMED: usize = 20;

/// Puts the events of stale tickets before the bridge, or says which they are.
///
/// # Errors
/// The route is not there, the ledger can't be read, or the cluster does not answer.
pub async fn resync(route: RouteArgs, key: Option<String>, rate: u32, yes: bool) -> Result<()> {
    let config = config::load(&route.file.config)?;
    let sink = choose(&config, route.route.as_deref())?;
    let site = site(&config, sink, false).await?;
    let reading = reading(sink, site.identity.partitions);
    let (mut found, mut stale) = (Found::default(), 0);
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(200));
    for partition in 0..site.partitions {
        let (bar, partitions, input) = (spinner.clone(), site.partitions, site.input.clone());
        let progress = move |read| {
            bar.set_message(format!("reads {input}: partition {} of {partitions}, {read} records", partition + 1));
        };
        let some = upkeep::stale(&site, &reading, partition, key.as_deref(), &mut found, progress).await?;
        for one in some.iter().take(NAMED.saturating_sub(stale)) {
            spinner.suspend(|| name(one));
        }
        stale += some.len();
        if yes && !some.is_empty() {
            let bar = ProgressBar::new(some.len() as u64);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} put before the bridge, {eta} left");
            style.map(|style| bar.set_style(style)).unwrap_or_default();
            upkeep::put(&site, some, rate, &mut |done| bar.set_position(done as u64)).await?;
            bar.finish_and_clear();
        }
    }
    spinner.finish_and_clear();
    tell(&found, stale);
    match (stale, yes) {
        (0, _) => {}
        (_, false) => println!("\nNothing was changed; say --yes to bring them up to date."),
        (_, true) => println!(
            "\nput before the bridge, which writes them at its pace; given again, this command says what is left. A \
             bridge that runs with another configuration maps them by that."
        ),
    }
    Ok(())
}

fn name(one: &Stale) {
    let columns: Vec<&str> = one.columns.iter().map(|column| &**column).collect();
    println!("{:<12} {}: {}", one.number, one.key, columns.join(", "));
}

fn tell(found: &Found, stale: usize) {
    if stale > NAMED {
        println!("and {} more", stale - NAMED);
    }
    println!("{stale} of {} open tickets have values that are not those of the mapping", found.open);
    for (column, count) in &found.columns {
        println!("{count:>8}  {column}");
    }
    let left_out = [
        (found.parked, "are parked: their redrive writes the new values"),
        (found.under_way, "have a write that is not settled yet: give the command again later"),
        (found.eventless, "have no event left in the topic: their next one brings them up to date"),
    ];
    for (count, why) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        println!("{count} of the open ones {why}");
    }
}

/// Sets the ledger and the group back, or says how far.
///
/// # Errors
/// Bridges are running, keys are parked, writes are unsettled, or the cluster does not answer.
pub async fn reprocess(route: RouteArgs, from: String, finished: bool, yes: bool) -> Result<()> {
    let config = config::load(&route.file.config)?;
    let sink = choose(&config, route.route.as_deref())?;
    let from = place(&from)?;
    let window = i64::try_from(sink.settings.reopen_window).unwrap_or(i64::MAX);
    let unproven = match from {
        StartAt::Latest => bail!("--from latest would apply nothing again: say earliest, a time or an age"),
        StartAt::Earliest => true,
        StartAt::Time(time) => time < clock::unix().saturating_sub(window),
    };
    let again = Again { from, finished, unproven };
    let site = site(&config, sink, false).await?;
    let told = upkeep::reread(&site, again).await?;
    for one in &told {
        println!(
            "partition {}: reading goes back from {} to {}; {} keys take part, {} are finished and stay as they are",
            one.partition, one.upto, one.from, one.keys, one.finished
        );
    }
    if told.is_empty() {
        println!("nothing was read since then: there is nothing to apply again");
        return Ok(());
    }
    println!(
        "Notes of these events are written once more. Alerts that the ledger does not know get tickets, if they open."
    );
    if unproven {
        println!(
            "It may have forgotten some of that time: each key that it does not know is looked up first, a request"
        );
        println!(
            "each, until `ledger adopt --proven`. One whose ticket is closed by now gets a successor, if it opens."
        );
    }
    if !yes {
        println!("\nNothing was changed; say --yes to apply them again.");
        return Ok(());
    }
    site.refuse_members(&groups(sink)).await?;
    let span = sink.instance.request_deadline + sink.instance.settle_time;
    println!("waits until no write of before can strike any more: {} s after the last", span.as_secs());
    let done = upkeep::reprocess(&site, again, span).await?;
    let records: i64 = done.iter().map(|one| one.upto - one.from).sum();
    println!("\nset back: when the bridge starts, it reads {records} records again");
    Ok(())
}
