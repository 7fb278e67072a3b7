//! The results of a run of the report, as plain data. They are stored as `figures.json` next to the report, so that its
//! page and charts can be drawn again without another run.

use serde::{Deserialize, Serialize};

use crate::oracle::ErrorCounts;

/// The whole report.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The day, UTC.
    pub day: String,
    /// Processor, cores, memory, kernel, broker: one line each.
    pub machine: Vec<String>,
    pub systems: Vec<SystemVersion>,
    pub scenarios: Vec<ScenarioResult>,
    pub measurements: Vec<Measurement>,
}

/// A system of the comparison.
#[derive(Debug, Serialize, Deserialize)]
pub struct SystemVersion {
    pub title: String,
    /// `None` if the system was not run.
    pub versions: Option<String>,
    /// Why it was not run.
    pub not_run: Option<String>,
}

/// The results of one scenario.
#[derive(Debug, Serialize, Deserialize)]
pub struct ScenarioResult {
    pub scenario: String,
    pub results: Vec<SystemResult>,
    /// Share of the machine's processor time that was busy, 0 to 1.
    pub busy_ratio: f64,
    /// Seconds from the start to the publication of the last event.
    pub published_for: f64,
    /// Seconds after the last event in which the tickets had to become correct.
    pub timeout: u64,
}

/// The results of one system in one scenario.
#[derive(Debug, Serialize, Deserialize)]
pub struct SystemResult {
    pub system: String,
    pub title: String,
    pub events: usize,
    pub tickets: usize,
    /// Errors at the end of the scenario.
    #[serde(flatten)]
    pub errors: ErrorCounts,
    /// Writes that carry an older event than the write before them.
    pub writes_out_of_order: usize,
    pub requests: u64,
    pub writes: u64,
    /// Requests that were answered with 429.
    pub throttled_requests: u64,
    /// Faults that the instance injected.
    pub faults: u64,
    /// Seconds from the last event until all tickets were correct. `None`: not within the scenario's timeout.
    pub correct_after: Option<f64>,
    /// Seconds from the publication of each critical alert to its ticket, ascending.
    pub critical_latencies: Vec<f64>,
    /// Critical alerts that got no ticket.
    pub critical_without_ticket: usize,
    pub cpu_ms_per_1000_events: f64,
    pub idle_mb: f64,
    pub peak_mb: f64,
    /// How often the consumer ended by itself.
    #[serde(default)]
    pub exits: usize,
    /// Seconds, and alerts whose ticket is not correct then.
    pub samples: Vec<(f64, usize)>,
}

/// One figure of the throughput cases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measurement {
    pub name: String,
    pub value: String,
    /// The limit or the target; empty if there is none.
    pub limit: String,
    /// The value in percent of the limit; empty if there is none.
    pub percent: String,
    /// The value divided by the limit.
    pub ratio: Option<f64>,
}

impl Measurement {
    /// A figure without a limit.
    pub fn plain(case: &str, name: &str, value: String) -> Self {
        let name = format!("{case}: {name}");
        Self { name, value, limit: String::new(), percent: String::new(), ratio: None }
    }

    /// Adds a target.
    pub fn with_target(self, target: &str) -> Self {
        Self { limit: format!("target: {target}"), ..self }
    }

    /// A figure with a limit, which `limit_text` explains.
    pub fn with_limit(case: &str, name: &str, value: f64, limit_text: String, limit: f64) -> Self {
        let ratio = value / limit;
        let (name, percent) = (format!("{case}: {name}"), format!("{:.1} %", 100.0 * ratio));
        Self { name, value: format!("{value:.1}"), limit: limit_text, percent, ratio: Some(ratio) }
    }
}

impl SystemResult {
    #[expect(clippy::cast_precision_loss, reason = "counts of minutes")]
    pub fn requests_per_event(&self) -> f64 {
        self.requests as f64 / self.events as f64
    }

    /// A quantile (0 to 1) of the critical alerts' latency. `None` if that alert got no ticket.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "dozens")]
    pub fn critical_latency(&self, quantile: f64) -> Option<f64> {
        let all = self.critical_latencies.len() + self.critical_without_ticket;
        let at = (quantile * all as f64).ceil() as usize;
        self.critical_latencies.get(at.saturating_sub(1)).copied()
    }

    /// Its errors by kind.
    pub fn errors_by_kind(&self) -> [(&'static str, usize); 6] {
        [
            ("duplicate tickets", self.errors.duplicate_tickets),
            ("lost tickets", self.errors.lost_tickets),
            ("tickets in a wrong state", self.errors.wrong_tickets),
            ("duplicate notes", self.errors.duplicate_notes),
            ("lost notes", self.errors.lost_notes),
            ("notes out of order", self.errors.notes_out_of_order),
        ]
    }
}
