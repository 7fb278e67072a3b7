//! What a run of the report found, as plain data: it is kept as `figures.json` beside the report, so that page and
//! plots can be drawn again from it without another run.

use serde::{Deserialize, Serialize};

use crate::oracle::Mistakes;

/// The whole report.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// The day, UTC.
    pub day: String,
    /// Processor, cores, memory, kernel, broker: one line each.
    pub machine: Vec<String>,
    /// Title, and versions or why it was not run.
    pub systems: Vec<Present>,
    pub rounds: Vec<Round>,
    pub cases: Vec<Case>,
}

/// A system of the comparison.
#[derive(Debug, Serialize, Deserialize)]
pub struct Present {
    pub title: String,
    pub versions: Option<String>,
    pub not_run: Option<String>,
}

/// One scenario.
#[derive(Debug, Serialize, Deserialize)]
pub struct Round {
    pub scenario: String,
    pub outcomes: Vec<Outcome>,
    /// Share of the machine's processor time that was busy, 0 to 1.
    pub busy: f64,
    /// When the last event was published, seconds after the start.
    pub ended: f64,
    /// How many seconds after it the tickets might take to be right.
    pub patience: u64,
}

/// One system in one scenario.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub system: String,
    pub title: String,
    pub events: usize,
    pub tickets: usize,
    /// What is wrong in the end.
    #[serde(flatten)]
    pub mistakes: Mistakes,
    /// Writes that carry an older event than the write before them.
    pub overtaken: usize,
    pub requests: u64,
    pub writes: u64,
    /// Requests answered 429.
    pub refused: u64,
    /// Faults that struck.
    pub struck: u64,
    /// Seconds after the last event until every ticket was right; none: not within the scenario's patience.
    pub right_after: Option<f64>,
    /// Seconds to the ticket of each critical alert that got one, in rising order; and how many did not.
    pub critical: Vec<f64>,
    pub never: usize,
    /// Milliseconds of processor time for 1,000 events.
    pub cpu_ms: f64,
    pub idle_mb: f64,
    pub peak_mb: f64,
    /// How often the consumer ended by itself.
    #[serde(default)]
    pub ended: usize,
    /// Seconds, and alerts whose ticket is not as it must be then.
    pub samples: Vec<(f64, usize)>,
}

/// One figure of the throughput cases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    pub what: String,
    pub reached: String,
    pub limit: String,
    pub share: String,
    /// The share as a number, where there is one.
    pub ratio: Option<f64>,
}

impl Case {
    pub fn plain(case: &str, what: &str, reached: String) -> Self {
        let what = format!("{case}: {what}");
        Self { what, reached, limit: String::new(), share: String::new(), ratio: None }
    }

    /// The same, beside what is wanted.
    pub fn wanted(self, wanted: &str) -> Self {
        Self { limit: format!("wanted: {wanted}"), ..self }
    }

    /// A figure beside the limit of the same run.
    pub fn rate(case: &str, what: &str, figure: f64, limit: String, most: f64) -> Self {
        let ratio = figure / most;
        let (what, share) = (format!("{case}: {what}"), format!("{:.1} %", 100.0 * ratio));
        Self { what, reached: format!("{figure:.1}"), limit, share, ratio: Some(ratio) }
    }
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "counts of minutes")]
    pub fn requests_an_event(&self) -> f64 {
        self.requests as f64 / self.events as f64
    }

    /// The latency that so great a share of the critical alerts did not exceed; none where that is one that never got a
    /// ticket.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "dozens")]
    pub fn critical_at(&self, share: f64) -> Option<f64> {
        let all = self.critical.len() + self.never;
        let at = (share * all as f64).ceil() as usize;
        self.critical.get(at.saturating_sub(1)).copied()
    }

    /// Everything that is not as it must be, by kind.
    pub fn faults(&self) -> [(&'static str, usize); 6] {
        [
            ("tickets doubled", self.mistakes.doubled),
            ("tickets missing", self.mistakes.missing),
            ("tickets in a wrong state", self.mistakes.wrong),
            ("notes doubled", self.mistakes.notes_doubled),
            ("notes missing", self.mistakes.notes_missing),
            ("notes out of order", self.mistakes.notes_disordered),
        ]
    }
}
