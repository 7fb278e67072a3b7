//! What waits, and when it will be done: for the page, the metrics and the log.
//!
//! An estimate: each key that waits takes one request, or its part of a batch, and requests go on as quickly as the
//! quota allows or the instance answers at present, after the wait that it asked for. Records that are still in Kafka are
//! not in it, and nothing is told while nobody knows when the route goes on.

use crate::engine::dispatcher::Snapshot;
use crate::engine::event::BlockReason;
use crate::model::{DrainEstimate, QuotaStatus};

/// A backlog that takes less than so many seconds is not worth a line in the log.
const WORTH_TELLING: f64 = 30.0;

/// Between two lines, milliseconds.
const TELL_EVERY: u64 = 60_000;

/// The backlog of a route that may stand still. `now` is on the mono clock.
pub fn backlog(snapshot: &Snapshot, plan: &QuotaStatus, blocked_by: Option<&BlockReason>, now: u64) -> DrainEstimate {
    let keys = snapshot.waiting;
    #[expect(clippy::cast_precision_loss, reason = "a number of keys, a span")]
    let seconds = match (keys, plan.throughput().filter(|rate| *rate > 0.0), blocked_by) {
        (0, ..) => Some(0.0),
        (keys, Some(rate), None | Some(BlockReason::Draining)) => Some(keys as f64 / rate),
        (keys, Some(rate), Some(BlockReason::Throttled(_, until))) => {
            Some(keys as f64 / rate + until.saturating_sub(now) as f64 / 1_000.0)
        }
        (_, None, _) | (_, _, Some(_)) => None,
    };
    DrainEstimate { keys, critical: snapshot.critical, seconds }
}

/// Tells the log now and then while a backlog lasts.
#[derive(Debug, Default)]
pub struct Forecast {
    told: Option<u64>,
}

impl Forecast {
    /// Tells of this backlog, if it is time.
    pub fn tell(&mut self, route: &str, backlog: &DrainEstimate, plan: &QuotaStatus, now: u64) {
        let Some(seconds) = backlog.seconds.filter(|seconds| *seconds >= WORTH_TELLING) else { return };
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return;
        }
        self.told = Some(now);
        tracing::info!(
            route,
            keys = backlog.keys,
            critical = backlog.critical,
            per_second = plan.throughput().map(|rate| (rate * 100.0).round() / 100.0),
            at_once = plan.at_once.0,
            "a backlog: done in about {}",
            in_words(seconds)
        );
    }
}

/// A span for people.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn in_words(seconds: f64) -> String {
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

    #[test]
    fn a_backlog_lasts_as_long_as_the_quota_makes_it() {
        let snapshot = Snapshot { waiting: 300, critical: 2, ..Snapshot::default() };
        let plan =
            QuotaStatus { per_second: Some(5.0), at_once: (4, 8), latency: Some(150.0), ..QuotaStatus::default() };
        let backlog = |snapshot: &Snapshot, plan: &QuotaStatus| backlog(snapshot, plan, None, 0);
        assert_eq!(backlog(&snapshot, &plan), DrainEstimate { keys: 300, critical: 2, seconds: Some(60.0) });
        let batches = QuotaStatus { per_call: Some(20), ..plan };
        let seconds = backlog(&snapshot, &batches).seconds.expect("the quota is known");
        assert!((11.0..12.0).contains(&seconds), "{seconds}: now the latency bounds it");
        let free = QuotaStatus { per_second: None, ..batches };
        let seconds = backlog(&snapshot, &free).seconds.expect("the latency is known");
        assert!((11.0..12.0).contains(&seconds), "{seconds}");
        assert_eq!(backlog(&snapshot, &QuotaStatus::default()).seconds, None, "nothing was sent yet");
        assert_eq!(backlog(&Snapshot::default(), &QuotaStatus::default()).seconds, Some(0.0));
    }

    #[test]
    fn nobody_knows_when_a_route_goes_on_that_stands_still_unless_it_was_told_to_wait() {
        let snapshot = Snapshot { waiting: 300, ..Snapshot::default() };
        let plan =
            QuotaStatus { per_second: Some(5.0), at_once: (4, 8), latency: Some(150.0), ..QuotaStatus::default() };
        let blocked_by = |blocked_by: BlockReason| backlog(&snapshot, &plan, Some(&blocked_by), 10_000).seconds;
        assert_eq!(blocked_by(BlockReason::Unavailable("down".into())), None);
        assert_eq!(blocked_by(BlockReason::Braked("20 refusals".into())), None);
        assert_eq!(blocked_by(BlockReason::Throttled(crate::model::HttpMethod::Post, 40_000)), Some(90.0));
    }

    #[test]
    fn spans_are_told_in_units_for_people() {
        assert_eq!([0.2, 119.0, 121.0, 7_199.0, 9_000.0].map(in_words), ["1 s", "119 s", "3 min", "120 min", "3 h"]);
    }
}
