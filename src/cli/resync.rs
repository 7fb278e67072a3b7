//! `nowbridge resync`: updates open tickets whose values differ after a change of the mapping.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::route_change::{RouteChange, Target};
use crate::bridge::{routes, stores};
use crate::ledger::admin::{self, ResyncCounts, RouteLedger, StaleTicket};

/// Maximum number of tickets that are printed.
const MAX_PRINTED: usize = 20;

/// The arguments.
pub(super) struct Resync {
    /// Pattern of alert keys; `None`: all.
    pub key: Option<String>,
    /// Events per second that are written to the input.
    pub rate: u32,
}

/// Where there are stale tickets. Their events are read again to be written, one partition at a time: those of all
/// tickets may not fit in memory.
pub(super) struct Preview {
    ledger: RouteLedger,
    partitions: Vec<i32>,
}

impl Resync {
    /// Finds the stale tickets of a partition, with the progress of its reading on a terminal.
    async fn find(
        &self,
        target: &Target,
        ledger: &RouteLedger,
        partition: i32,
        counts: &mut ResyncCounts,
    ) -> Result<Vec<StaleTicket>> {
        let mapping = routes::record_mapping(target.sink()?, ledger.identity.partitions);
        let spinner = ProgressBar::new_spinner();
        spinner.enable_steady_tick(Duration::from_millis(200));
        let (bar, partitions, input) = (spinner.clone(), ledger.partitions, ledger.input.clone());
        let progress = move |read| {
            let partition = partition + 1;
            bar.set_message(format!("reading {input}: partition {partition} of {partitions}, {read} records"));
        };
        let tickets = admin::find_stale(ledger, &mapping, partition, self.key.as_deref(), counts, progress).await?;
        spinner.finish_and_clear();
        Ok(tickets)
    }
}

impl RouteChange for Resync {
    type Preview = Preview;

    async fn preview(&self, target: &Target) -> Result<Option<Preview>> {
        let ledger = stores::ledger(&target.config, target.sink()?, false).await?;
        let (mut counts, mut stale, mut partitions) = (ResyncCounts::default(), 0, Vec::new());
        for partition in 0..ledger.partitions {
            let tickets = self.find(target, &ledger, partition, &mut counts).await?;
            tickets.iter().take(MAX_PRINTED.saturating_sub(stale)).for_each(print_ticket);
            stale += tickets.len();
            partitions.extend((!tickets.is_empty()).then_some(partition));
        }
        print_summary(&counts, stale);
        Ok((stale > 0).then_some(Preview { ledger, partitions }))
    }

    async fn apply(&self, target: &Target, Preview { ledger, partitions }: Preview) -> Result<()> {
        for partition in partitions {
            let tickets = self.find(target, &ledger, partition, &mut ResyncCounts::default()).await?;
            let bar = ProgressBar::new(tickets.len() as u64);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} events written to the input, {eta} left");
            style.map(|style| bar.set_style(style)).unwrap_or_default();
            admin::write_events(&ledger, tickets, self.rate, &mut |done| bar.set_position(done as u64)).await?;
            bar.finish_and_clear();
        }
        println!(
            "\nWrote the events to {}; the running bridge updates the tickets as its quota allows, with the mapping of \
             its own configuration. Run the command again to see which tickets remain.",
            ledger.input
        );
        Ok(())
    }
}

fn print_ticket(ticket: &StaleTicket) {
    let columns: Vec<&str> = ticket.columns.iter().map(|column| &**column).collect();
    println!("{:<12} {}: {}", ticket.number, ticket.key, columns.join(", "));
}

fn print_summary(counts: &ResyncCounts, stale: usize) {
    if stale > MAX_PRINTED {
        println!("and {} more", stale - MAX_PRINTED);
    }
    println!("{stale} of {} open tickets have values that differ from the mapping", counts.open);
    for (column, count) in &counts.stale_by_column {
        println!("{count:>8}  {column}");
    }
    let skipped = [
        (counts.parked, "are parked: a redrive of their dead letters writes the new values"),
        (counts.ambiguous, "have an ambiguous write: run the command again later"),
        (counts.without_event, "have no event left in the topic: their next event will update them"),
    ];
    for (count, reason) in skipped.into_iter().filter(|(count, _)| *count > 0) {
        println!("{count} of the open tickets {reason}");
    }
}
