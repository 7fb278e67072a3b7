//! Estimates when the waiting keys of a route are written: for the console, the metrics and the log.
//!
//! Each waiting key takes one request, or its part of a batch. Requests are sent as fast as the quota allows, or as
//! fast as the instance responds at present, after the wait that the instance asked for. Records that are still in
//! Kafka are not included. There is no estimate while it is unknown when a blocked route resumes.

use crate::engine::dispatcher::Snapshot;
use crate::engine::event::BlockReason;
use crate::model::{DrainEstimate, QuotaStatus};

/// Estimates below this are not logged, seconds.
const LOG_THRESHOLD: f64 = 30.0;

/// Interval between two log lines, milliseconds.
const LOG_INTERVAL: u64 = 60_000;

/// Returns the estimate for a route. `now` is on the mono clock.
pub fn estimate(snapshot: &Snapshot, quota: &QuotaStatus, blocked_by: Option<&BlockReason>, now: u64) -> DrainEstimate {
    let keys = snapshot.waiting_lanes;
    #[expect(clippy::cast_precision_loss, reason = "a number of keys, a span")]
    let seconds = match (keys, quota.throughput().filter(|rate| *rate > 0.0), blocked_by) {
        (0, ..) => Some(0.0),
        (keys, Some(rate), None | Some(BlockReason::Draining)) => Some(keys as f64 / rate),
        (keys, Some(rate), Some(BlockReason::Throttled { until, .. })) => {
            Some(keys as f64 / rate + until.saturating_sub(now) as f64 / 1_000.0)
        }
        (_, None, _) | (_, _, Some(_)) => None,
    };
    DrainEstimate { keys, critical_keys: snapshot.critical_lanes, seconds }
}

/// Logs the estimate at intervals while keys wait.
#[derive(Debug, Default)]
pub struct DrainLog {
    /// Time of the last log line on the mono clock.
    last: Option<u64>,
}

impl DrainLog {
    /// Logs the estimate, if it is due.
    pub fn log(&mut self, route: &str, drain: &DrainEstimate, quota: &QuotaStatus, now: u64) {
        let Some(seconds) = drain.seconds.filter(|seconds| *seconds >= LOG_THRESHOLD) else { return };
        if self.last.is_some_and(|last| now < last + LOG_INTERVAL) {
            return;
        }
        self.last = Some(now);
        tracing::info!(
            route,
            keys = drain.keys,
            critical_keys = drain.critical_keys,
            per_second = quota.throughput().map(|rate| (rate * 100.0).round() / 100.0),
            concurrency_limit = quota.concurrency_limit,
            "keys are waiting, estimated time to drain: {}",
            format_seconds(seconds)
        );
    }
}

/// Formats a duration in seconds, minutes or hours.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn format_seconds(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3_600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> QuotaStatus {
        QuotaStatus {
            requests_per_second: Some(5.0),
            concurrency_limit: 4,
            max_concurrency: 8,
            write_latency_ms: Some(150.0),
            ..QuotaStatus::default()
        }
    }

    #[test]
    fn the_quota_or_the_latency_bounds_the_estimate() {
        let snapshot = Snapshot { waiting_lanes: 300, critical_lanes: 2, ..Snapshot::default() };
        let estimate = |snapshot: &Snapshot, quota: &QuotaStatus| estimate(snapshot, quota, None, 0);
        let expected = DrainEstimate { keys: 300, critical_keys: 2, seconds: Some(60.0) };
        assert_eq!(estimate(&snapshot, &quota()), expected);
        let batches = QuotaStatus { batch_size: Some(20), ..quota() };
        let seconds = estimate(&snapshot, &batches).seconds.expect("the quota is known");
        assert!((11.0..12.0).contains(&seconds), "{seconds}: now the latency bounds it");
        let unlimited = QuotaStatus { requests_per_second: None, ..batches };
        let seconds = estimate(&snapshot, &unlimited).seconds.expect("the latency is known");
        assert!((11.0..12.0).contains(&seconds), "{seconds}");
        assert_eq!(estimate(&snapshot, &QuotaStatus::default()).seconds, None, "nothing was sent yet");
        assert_eq!(estimate(&Snapshot::default(), &QuotaStatus::default()).seconds, Some(0.0));
    }

    #[test]
    fn a_blocked_route_has_no_estimate_unless_it_is_throttled() {
        let snapshot = Snapshot { waiting_lanes: 300, ..Snapshot::default() };
        let seconds = |reason: BlockReason| estimate(&snapshot, &quota(), Some(&reason), 10_000).seconds;
        assert_eq!(seconds(BlockReason::Unavailable("down".into())), None);
        assert_eq!(seconds(BlockReason::RejectionLimit("20 rejections".into())), None);
        assert_eq!(
            seconds(BlockReason::Throttled { method: crate::model::HttpMethod::Post, until: 40_000 }),
            Some(90.0)
        );
    }

    #[test]
    fn durations_are_formatted_in_seconds_minutes_or_hours() {
        assert_eq!(
            [0.2, 119.0, 121.0, 7_199.0, 9_000.0].map(format_seconds),
            ["1 s", "119 s", "3 min", "120 min", "3 h"]
        );
    }
}
