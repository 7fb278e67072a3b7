//! `nowbridge dead-letters redrive`: puts dead letters back into the input, round by round, with progress.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::super::args::DeadLetterArgs;
use super::super::route_change::Target;
use super::{parse_filter, print_selection, shorten};
use crate::bridge::stores;
use crate::dead_letters::{RedriveLimits, RedriveProgress, RoundOutcome, select};

/// Maximum number of rejected keys that are printed per round.
const MAX_PRINTED: usize = 20;

/// Redrives the selected letters. Returns false if some were rejected again.
///
/// # Errors
/// The bridge makes no progress, newer letters arrive faster than they are redriven, or the cluster does not respond.
pub async fn redrive(target: &Target, args: DeadLetterArgs, dry_run: bool, limits: RedriveLimits) -> Result<bool> {
    let store = stores::dead_letters(&target.config, target.sink()?);
    let selection = select(&store.open_letters().await?, &parse_filter(args)?, limits.max_redrives);
    for (key, times) in &selection.exhausted {
        let max = limits.max_redrives;
        eprintln!("skipping {key}: redriven {times} times and rejected each time (--max-redrives {max})");
    }
    if selection.is_empty() {
        println!("no open dead letter to redrive");
        return Ok(true);
    }
    if dry_run {
        print_selection(&selection);
        println!("\nNothing was changed; run again without --dry-run to redrive them.");
        return Ok(true);
    }
    stores::create_redrives_topic(&target.config, &store).await?;
    let mut display = Display::new(selection.len());
    Ok(store.redrive(selection, &limits, &mut |progress| display.show(&progress)).await?)
}

/// Shows a progress bar on a terminal, and prints a line per round.
struct Display {
    bar: ProgressBar,
    round: u32,
}

impl Display {
    fn new(letters: usize) -> Self {
        Self { bar: letters_bar(letters), round: 0 }
    }

    fn show(&mut self, progress: &RedriveProgress) {
        match progress {
            RedriveProgress::Started { letters } => self.bar = letters_bar(*letters),
            RedriveProgress::Redriven(letters) => self.bar.set_position(*letters as u64),
            RedriveProgress::Waiting { records: 0 } => self.bar.finish_and_clear(),
            RedriveProgress::Waiting { records } => {
                self.bar.set_style(ProgressStyle::default_spinner());
                self.bar.set_message(format!("waiting for the bridge: {records} records left"));
                self.bar.tick();
            }
            RedriveProgress::Ended(outcome) => {
                self.bar.finish_and_clear();
                self.round += 1;
                print_round(self.round, outcome);
            }
        }
    }
}

fn letters_bar(letters: usize) -> ProgressBar {
    let bar = ProgressBar::new(letters as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} letters redriven, {eta} left");
    style.map(|style| bar.set_style(style)).unwrap_or_default();
    bar
}

fn print_round(round: u32, outcome: &RoundOutcome) {
    println!(
        "round {round}: put back {} letters; {} keys released, {} rejected again, {} with newer letters",
        outcome.letters,
        outcome.released.len(),
        outcome.rejected.len(),
        outcome.keys_with_newer.len()
    );
    for (key, reason) in outcome.rejected.iter().take(MAX_PRINTED) {
        println!("  rejected again: {key}: {}", shorten(reason, 160));
    }
    if outcome.keyless > 0 {
        println!("  put back {} letters without a key; `list` shows those that were rejected again", outcome.keyless);
    }
}
