//! `nowbridge resync`: updates open tickets whose values a changed mapping computes differently.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::route_change::{RouteChange, Target};
use crate::bridge::{routes, stores};
use crate::ledger::admin::{self, Found, Site, Stale};

/// Tickets that are printed by name.
const PRINTED: usize = 20;

/// Which tickets, and how fast.
pub(super) struct Resync {
    /// Pattern of alert keys; `None`: all.
    pub key: Option<String>,
    /// Events per second that are written to the input.
    pub rate: u32,
}

/// The stale tickets, by partition.
pub(super) struct Preview {
    site: Site,
    stale: Vec<Vec<Stale>>,
}

impl RouteChange for Resync {
    type Preview = Preview;

    async fn preview(&self, target: &Target) -> Result<Option<Preview>> {
        let sink = target.sink()?;
        let site = stores::ledger(&target.config, sink, false).await?;
        let mapping = routes::record_mapping(sink, site.identity.partitions);
        let (mut found, mut stale) = (Found::default(), Vec::new());
        let spinner = ProgressBar::new_spinner();
        spinner.enable_steady_tick(Duration::from_millis(200));
        for partition in 0..site.partitions {
            let (bar, partitions, input) = (spinner.clone(), site.partitions, site.input.clone());
            let progress = move |read| {
                let partition = partition + 1;
                bar.set_message(format!("reading {input}: partition {partition} of {partitions}, {read} records"));
            };
            let key = self.key.as_deref();
            let of_partition = admin::stale(&site, &mapping, partition, key, &mut found, progress).await?;
            let printed: usize = stale.iter().map(Vec::len).sum();
            for one in of_partition.iter().take(PRINTED.saturating_sub(printed)) {
                spinner.suspend(|| print_ticket(one));
            }
            stale.push(of_partition);
        }
        spinner.finish_and_clear();
        let count = stale.iter().map(Vec::len).sum();
        print_summary(&found, count);
        Ok((count > 0).then_some(Preview { site, stale }))
    }

    async fn apply(&self, _: &Target, preview: Preview) -> Result<()> {
        let Preview { site, stale } = preview;
        for of_partition in stale.into_iter().filter(|of_partition| !of_partition.is_empty()) {
            let bar = ProgressBar::new(of_partition.len() as u64);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} events written to the input, {eta} left");
            style.map(|style| bar.set_style(style)).unwrap_or_default();
            admin::put(&site, of_partition, self.rate, &mut |done| bar.set_position(done as u64)).await?;
            bar.finish_and_clear();
        }
        println!(
            "\nWrote the events to {}; the running bridge updates the tickets as its quota allows, with the mapping of \
             its own configuration. Run the command again to see which tickets remain.",
            site.input
        );
        Ok(())
    }
}

fn print_ticket(one: &Stale) {
    let columns: Vec<&str> = one.columns.iter().map(|column| &**column).collect();
    println!("{:<12} {}: {}", one.number, one.key, columns.join(", "));
}

fn print_summary(found: &Found, stale: usize) {
    if stale > PRINTED {
        println!("and {} more", stale - PRINTED);
    }
    println!("{stale} of {} open tickets have values that differ from the mapping's", found.open);
    for (column, count) in &found.columns {
        println!("{count:>8}  {column}");
    }
    let skipped = [
        (found.parked, "are parked: redriving their dead letters writes the new values"),
        (found.under_way, "have an unsettled write: run the command again later"),
        (found.eventless, "have no event left in the topic: their next event updates them"),
    ];
    for (count, reason) in skipped.into_iter().filter(|(count, _)| *count > 0) {
        println!("{count} of the open tickets {reason}");
    }
}
