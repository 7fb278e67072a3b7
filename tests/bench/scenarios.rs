//! What the systems are put through, and what is the best that anything could do there: a calm time, alerts that flap,
//! a storm against a quota, and faults of the instance with kills of the consumer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::workload::{Kind, Measures};
use crate::world::Setup;

/// One scenario.
pub struct Scenario {
    pub name: &'static str,
    /// One sentence for the report.
    pub about: &'static str,
    pub measures: Measures,
    /// Milliseconds that the instance takes for a request.
    pub latency: u32,
    /// Requests a minute that the instance allows.
    pub quota: Option<u32>,
    pub faults: Value,
    /// When the consumer is killed, and at once started again.
    pub kills: &'static [u64],
    /// How long after the last event the tickets may take to be right.
    pub patience: Duration,
}

/// Requests at once that the systems may make.
pub const AT_ONCE: u32 = 8;
/// The longest that a lost write takes to strike, in milliseconds; and how long the bridge is told that it, and a request,
/// may take.
const GHOST: u64 = 3_000;
const SETTLE: Duration = Duration::from_secs(5);

/// What physics and the instance leave possible.
pub struct Limits {
    /// Seconds from an alert's publication to its ticket: at most one request.
    pub ticket: f64,
    /// Requests an event.
    pub requests: f64,
    pub requests_are: String,
    /// Seconds from the last event until every ticket is right.
    pub right: f64,
    pub right_is: String,
}

impl Scenario {
    pub fn all() -> Vec<Self> {
        let measures = |kind, events, keys, seconds, critical_every| Measures {
            kind,
            events,
            keys,
            lasts: Duration::from_secs(seconds),
            critical_every,
        };
        vec![
            Self {
                name: "calm",
                about: "60 events in 30 s on 12 alerts: as much as the slowest of the systems can carry; 150 ms a request.",
                measures: measures(Kind::Calm, 60, 12, 30, 6),
                latency: 150,
                quota: None,
                faults: json!({}),
                kills: &[],
                patience: Duration::from_secs(20),
            },
            Self {
                name: "flap",
                about: "900 events in 60 s on 30 alerts, which resolve and open again all the time; 150 ms a request.",
                measures: measures(Kind::Flap, 900, 30, 60, 30),
                latency: 150,
                quota: None,
                faults: json!({}),
                kills: &[],
                patience: Duration::from_secs(60),
            },
            Self {
                name: "storm",
                about: "10,000 events in 60 s on 300 alerts, against an instance that allows 300 requests a minute and takes 150 ms for one.",
                measures: measures(Kind::Storm, 10_000, 300, 60, 500),
                latency: 150,
                quota: Some(300),
                faults: json!({}),
                kills: &[],
                patience: Duration::from_secs(210),
            },
            Self {
                name: "faults",
                about: "300 events in 60 s on 50 alerts, 50 ms a request; of 100 writes, 3 lose their answer after the commit, 2 strike up \
                        to 3 s after their connection is gone, 2 are answered 500 after the commit and 2 before it, 3 get \
                        503; every 10 s the instance answers 429 for a second, with Retry-After; and the consumer is \
                        killed (SIGKILL) and started again after 20 s and 40 s, where its partitions stand still until the dead member's \
                        session is over (6 s).",
                measures: measures(Kind::Calm, 300, 50, 60, 15),
                latency: 50,
                quota: None,
                faults: json!({
                    "seed": 5, "drop_after_commit": 0.03, "ghost": 0.02, "ghost_ms": [1_000, GHOST],
                    "error_500_after_commit": 0.02, "error_500_before_commit": 0.02, "gateway_503_before_commit": 0.03,
                    "throttle": {"every_ms": 10_000, "for_ms": 1_000, "retry_after": 1},
                }),
                kills: &[20, 40],
                patience: Duration::from_secs(60),
            },
        ]
    }

    /// How the instance and the bridge are set up for it.
    pub fn setup(&self) -> Setup {
        Setup {
            latency: self.latency,
            at_once: AT_ONCE,
            quota: self.quota,
            settle: (!self.kills.is_empty()).then_some(SETTLE),
            history: true,
            ..Setup::default()
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of two minutes")]
    pub fn limits(&self) -> Limits {
        let ticket = f64::from(self.latency) / 1_000.0;
        let (keys, events) = (self.measures.keys as f64, self.measures.events as f64);
        let plain = Limits {
            ticket,
            requests: 1.0,
            requests_are: "one write an event".into(),
            right: ticket,
            right_is: "one request".into(),
        };
        match self.quota {
            Some(quota) => {
                let a_second = f64::from(quota) / 60.0;
                let drain = keys / a_second;
                let most = a_second * (self.measures.lasts.as_secs_f64() + drain);
                Limits {
                    requests: most / events,
                    requests_are: "all that the quota gives until then".into(),
                    right: drain,
                    right_is: format!("{keys} alerts at {a_second} requests a second"),
                    ..plain
                }
            }
            None if !self.kills.is_empty() => {
                #[expect(clippy::cast_precision_loss, reason = "some seconds")]
                let ghost = GHOST as f64 / 1_000.0;
                Limits {
                    right: ghost + ticket,
                    right_is: "where the last write is lost, until it has struck and is mended".into(),
                    ..plain
                }
            }
            None => plain,
        }
    }
}
