//! Reports the state of a route and the engine's observations: to the status, the metrics and the log.

use super::drain_estimate::estimate;
use super::driver::Driver;
use crate::engine::event::{BlockReason, Observation};
use crate::model::Key;
use crate::runtime::clock;
use crate::runtime::metrics;

impl Driver {
    /// Publishes the route's state, at most five times per second.
    pub fn publish_status(&mut self) {
        let now = clock::now();
        if now.mono < self.last_status + 200 {
            return;
        }
        self.last_status = now.mono;
        let snapshot = self.dispatcher.snapshot(now);
        self.limiter().set_share(&self.route.name, snapshot.partitions, self.route.mapping.partitions, now.mono);
        let quota = self.quota_status();
        let drain = estimate(&snapshot, &quota, self.dispatcher.blocked_by(), now.mono);
        metrics::route(&self.route.name, &snapshot, &quota, &drain);
        self.drain_log.log(&self.route.name, &drain, &quota, now.mono);
        let blocked_by = self.dispatcher.blocked_by().map(|reason| describe(reason, now.mono));
        let parked = self.dispatcher.parked_keys().take(100).map(|(k, r)| (k.to_string(), r.to_owned())).collect();
        self.status.update(|s| {
            s.snapshot = snapshot;
            s.quota = quota;
            s.drain = drain;
            s.blocked_by = blocked_by;
            s.parked = parked;
            s.heartbeat = now.mono;
        });
    }

    pub(super) fn observe(&self, observation: Observation) {
        let route = &*self.route.name;
        metrics::observed(route, &observation);
        match observation {
            Observation::WriteAmbiguous(key, reason) => {
                tracing::warn!(route, key = &*key, reason, "write outcome unknown, verifying");
            }
            Observation::AmbiguitySettled { key, applied } => {
                tracing::info!(route, key = &*key, applied, "write outcome resolved");
            }
            Observation::WriteIneffective(key, reason) => {
                tracing::warn!(route, key = &*key, reason, "ticket written, but not as sent; not tried again");
            }
            Observation::OutdatedStateChange(key, action) => {
                tracing::warn!(
                    route,
                    key = &*key,
                    ?action,
                    "change of state not applied to the open ticket, a newer one was before"
                );
            }
            Observation::FutureTime(key, by_ms) => {
                tracing::warn!(
                    route,
                    key = &*key,
                    by_ms,
                    "event dated in the future, its receipt counts; check the sender's clock"
                );
            }
            Observation::UserEditPreserved(key, column) => {
                tracing::info!(route, key = &*key, column = &*column, "user edit preserved, column not written");
            }
            Observation::Skipped(key, reason) => tracing::debug!(route, key = &*key, reason, "event skipped"),
            Observation::Unchanged(key) => tracing::debug!(route, key = &*key, "ticket already up to date"),
            Observation::Expired(key) => tracing::debug!(route, key = &*key, "ledger entry expired"),
            Observation::Parked(key, reason) => tracing::warn!(route, key = &*key, reason, "key parked"),
            Observation::Unparked(key) => tracing::info!(route, key = &*key, "key released"),
            Observation::StillParked(key, redrive, reason) => {
                tracing::warn!(route, key = &*key, %redrive, reason, "key still parked after a redrive");
            }
            Observation::Blocked(Some(reason)) => match &reason {
                BlockReason::Draining => tracing::info!(route, "route draining"),
                reason => tracing::error!(route, reason = describe(reason, clock::mono()), "route stopped"),
            },
            Observation::Blocked(None) => tracing::info!(route, "route resumed"),
            Observation::DuplicateTickets(key, tickets) => warn_duplicate(route, &key, tickets),
            Observation::TicketMissing(key, sys_id) => {
                tracing::warn!(route, key = &*key, sys_id, "ticket deleted or no longer visible");
            }
            Observation::TokenRenewed(partition) => {
                tracing::warn!(route, partition, "outcome of a ledger write unknown, taking the partition over again");
            }
        }
    }
}

fn warn_duplicate(route: &str, key: &Key, tickets: usize) {
    tracing::warn!(route, key = &**key, tickets, "several tickets have this key, using the oldest");
}

/// Returns why the route is blocked and what to do, as text. `now` is on the mono clock.
fn describe(reason: &BlockReason, now: u64) -> String {
    match reason {
        BlockReason::Unavailable(error) => {
            format!("the instance is unavailable, retrying with one request at a time: {error}")
        }
        BlockReason::Unauthorized(error) => {
            format!("the instance rejects the credentials ({error}); correct them, the route then resumes by itself")
        }
        BlockReason::Throttled { method, until } => {
            let seconds = until.saturating_sub(now).div_ceil(1000);
            format!("the instance limits the rate: next {} in {seconds} s", method.name())
        }
        BlockReason::RejectionLimit(error) => {
            format!("rejection limit reached: {error}; fix the cause, then run `nowbridge resume`")
        }
        BlockReason::Draining => "shutting down".into(),
    }
}
