//! Progress on the terminal; plain lines where the output is piped.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tally::Tally;

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// Shows how far the demo is.
pub struct Progress {
    bar: Option<ProgressBar>,
    events: usize,
    tickets: u32,
    last_line: Option<Instant>,
}

impl Progress {
    /// For so many events and tickets.
    pub fn new(events: usize, tickets: u32) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(u64::from(tickets)), ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template("{bar:40.cyan/blue} {pos}/{len} tickets right  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, events, tickets, last_line: None }
    }

    /// Shows the present counts.
    pub fn show(&mut self, tally: &Tally, fed: usize, elapsed: Duration) {
        let message = format!(
            "{fed}/{} alerts published, {} requests, {} changes back",
            self.events, tally.requests, tally.changes
        );
        if let Some(bar) = &self.bar {
            bar.set_position(tally.right as u64);
            bar.set_message(message);
            return;
        }
        if self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            println!("{:>4} s  {}/{} tickets right, {message}", elapsed.as_secs(), tally.right, self.tickets);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
