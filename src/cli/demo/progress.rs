//! Shows a progress bar on a terminal, and prints plain lines if the output is redirected.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tally::Tally;

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// The progress of the demo.
pub struct Progress {
    bar: Option<ProgressBar>,
    events: usize,
    tickets: u32,
    last_line: Option<Instant>,
}

impl Progress {
    /// Creates the display for a number of events and tickets.
    pub fn new(events: usize, tickets: u32) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(u64::from(tickets)), ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template("{bar:40.cyan/blue} {pos}/{len} tickets correct  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, events, tickets, last_line: None }
    }

    /// Shows the current counts.
    pub fn show(&mut self, tally: &Tally, published: usize, elapsed: Duration) {
        let message = format!(
            "{published}/{} alerts published, {} requests, {} changes received",
            self.events, tally.requests, tally.changes
        );
        if let Some(bar) = &self.bar {
            bar.set_position(tally.correct as u64);
            bar.set_message(message);
            return;
        }
        if self.last_line.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
            self.last_line = Some(Instant::now());
            println!("{:>4} s  {}/{} tickets correct, {message}", elapsed.as_secs(), tally.correct, self.tickets);
        }
    }

    /// Removes the progress bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
