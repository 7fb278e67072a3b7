//! The scenarios of the fault benchmark, with the best result that is possible in each: calm alerts, flapping alerts, a
//! storm against a request quota, and faults of the instance with kills of the consumer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::testbed::Setup;
use crate::workload::{Pattern, Profile};

/// One scenario.
pub struct Scenario {
    pub name: &'static str,
    /// One sentence for the report.
    pub about: &'static str,
    pub profile: Profile,
    /// Milliseconds that the instance takes for a request.
    pub latency_ms: u32,
    /// Limit of the instance's rate limit rule. `None`: no rule.
    pub requests_per_minute: Option<u32>,
    pub faults: Value,
    /// Seconds after which the consumer is killed and restarted.
    pub kills: &'static [u64],
    /// Time after the last event in which the tickets must become correct.
    pub timeout: Duration,
}

/// Maximum number of concurrent requests of a system.
pub const CONCURRENCY: u32 = 8;
/// Longest delay of a ghost write's commit.
const GHOST_DELAY_MS: u64 = 3_000;
/// The bridge's `request_deadline` and `max_transaction_time` in scenarios with faults.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// The best possible results.
pub struct Limits {
    /// Seconds from an alert's publication to its ticket: one request.
    pub critical_latency: f64,
    pub requests_per_event: f64,
    /// What limits them, in words.
    pub requests_reason: String,
    /// Seconds from the last event until all tickets are correct.
    pub correct_after: f64,
    /// What limits it, in words.
    pub correct_reason: String,
}

impl Scenario {
    pub fn all() -> Vec<Self> {
        let profile = |pattern, events, keys, seconds, critical_every| Profile {
            pattern,
            events,
            keys,
            duration: Duration::from_secs(seconds),
            critical_every,
        };
        vec![
            Self {
                name: "calm",
                about: "60 events of 12 alerts in 30 s, as many as the slowest system can process; 150 ms per request.",
                profile: profile(Pattern::Calm, 60, 12, 30, 6),
                latency_ms: 150,
                requests_per_minute: None,
                faults: json!({}),
                kills: &[],
                timeout: Duration::from_secs(20),
            },
            Self {
                name: "flap",
                about: "900 events of 30 alerts in 60 s; the alerts resolve and open again all the time; 150 ms per request.",
                profile: profile(Pattern::Flap, 900, 30, 60, 30),
                latency_ms: 150,
                requests_per_minute: None,
                faults: json!({}),
                kills: &[],
                timeout: Duration::from_secs(60),
            },
            Self {
                name: "storm",
                about: "10,000 events of 300 alerts in 60 s; the instance allows 300 requests per minute; 150 ms per request.",
                profile: profile(Pattern::Storm, 10_000, 300, 60, 500),
                latency_ms: 150,
                requests_per_minute: Some(300),
                faults: json!({}),
                kills: &[],
                timeout: Duration::from_secs(210),
            },
            Self {
                name: "faults",
                about: "300 events of 50 alerts in 60 s; 50 ms per request. Of 100 writes, 3 lose their response after the \
                        commit, 2 are committed up to 3 s after their connection was cut, 2 are answered with 500 \
                        after the commit and 2 before it, and 3 with 503. Every 10 s the instance answers with 429 and \
                        Retry-After for one second. The consumer is killed (SIGKILL) and restarted after 20 s and \
                        40 s; its partitions are not processed until the killed member's session ends (6 s).",
                profile: profile(Pattern::Calm, 300, 50, 60, 15),
                latency_ms: 50,
                requests_per_minute: None,
                faults: json!({
                    "seed": 5, "drop_after_commit": 0.03, "ghost": 0.02, "ghost_delay_ms": [1_000, GHOST_DELAY_MS],
                    "error_500_after_commit": 0.02, "error_500_before_commit": 0.02, "gateway_503_before_commit": 0.03,
                    "throttle": {"every_ms": 10_000, "for_ms": 1_000, "retry_after": 1},
                }),
                kills: &[20, 40],
                timeout: Duration::from_secs(60),
            },
        ]
    }

    /// The setup of the instance and the bridge.
    pub fn setup(&self) -> Setup {
        Setup {
            latency_ms: self.latency_ms,
            concurrency: CONCURRENCY,
            requests_per_minute: self.requests_per_minute,
            request_deadline: (!self.kills.is_empty()).then_some(REQUEST_DEADLINE),
            write_log: true,
            ..Setup::default()
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of two minutes")]
    pub fn limits(&self) -> Limits {
        let request = f64::from(self.latency_ms) / 1_000.0;
        let (keys, events) = (self.profile.keys as f64, self.profile.events as f64);
        let base = Limits {
            critical_latency: request,
            requests_per_event: 1.0,
            requests_reason: "one write per event".into(),
            correct_after: request,
            correct_reason: "one request".into(),
        };
        match self.requests_per_minute {
            Some(requests) => {
                let per_second = f64::from(requests) / 60.0;
                let drain = keys / per_second;
                let most = per_second * (self.profile.duration.as_secs_f64() + drain);
                Limits {
                    requests_per_event: most / events,
                    requests_reason: "all that the quota allows until then".into(),
                    correct_after: drain,
                    correct_reason: format!("{keys} alerts at {per_second} requests per second"),
                    ..base
                }
            }
            None if !self.kills.is_empty() => {
                #[expect(clippy::cast_precision_loss, reason = "some seconds")]
                let ghost_delay = GHOST_DELAY_MS as f64 / 1_000.0;
                Limits {
                    correct_after: ghost_delay + request,
                    correct_reason: "if the last write is a ghost write: its commit, and one request to correct it"
                        .into(),
                    ..base
                }
            }
            None => base,
        }
    }
}
