//! What the engine observes, in words for the log; why a route stands still, in words for people; its present state.

use super::drain_estimate::backlog;
use super::driver::Driver;
use crate::engine::event::{BlockReason, Observation};
use crate::model::Key;
use crate::runtime::clock;
use crate::runtime::metrics;

impl Driver {
    /// Shows the present state, a few times a second at most.
    pub fn publish_status(&mut self) {
        let now = clock::now();
        if now.mono < self.last_status + 200 {
            return;
        }
        self.last_status = now.mono;
        let snapshot = self.dispatcher.snapshot(now);
        self.pace().set_share(&self.route.name, snapshot.partitions.0, self.route.mapping.partitions, now.mono);
        let plan = self.plan();
        let backlog = backlog(&snapshot, &plan, self.dispatcher.blocked_by(), now.mono);
        metrics::route(&self.route.name, &snapshot, &plan, &backlog);
        self.forecast.tell(&self.route.name, &backlog, &plan, now.mono);
        let blocked_by = self.dispatcher.blocked_by().map(|s| in_words(s, now.mono));
        let parked = self.dispatcher.parked().take(100).map(|(k, r)| (k.to_string(), r.to_owned())).collect();
        self.status.update(|s| {
            s.snapshot = snapshot;
            s.plan = plan;
            s.backlog = backlog;
            s.blocked_by = blocked_by;
            s.parked = parked;
            s.pulse = now.mono;
        });
    }

    pub(super) fn observe(&self, observation: Observation) {
        let route = &*self.route.name;
        metrics::observed(route, &observation);
        match observation {
            Observation::WriteAmbiguous(key, why) => tracing::warn!(route, key = &*key, why, "in doubt, looks"),
            Observation::AmbiguitySettled(key, there) => tracing::info!(route, key = &*key, there, "settled a doubt"),
            Observation::UserEditPreserved(key, column) => {
                tracing::info!(route, key = &*key, column = &*column, "kept a person's value");
            }
            Observation::Skipped(key, why) => tracing::debug!(route, key = &*key, why, "skipped an event"),
            Observation::Unchanged(key) => tracing::debug!(route, key = &*key, "nothing to change"),
            Observation::Expired(key) => tracing::debug!(route, key = &*key, "forgot a finished ticket"),
            Observation::Parked(key, why) => tracing::warn!(route, key = &*key, why, "parked a key"),
            Observation::Unparked(key) => tracing::info!(route, key = &*key, "released a parked key"),
            Observation::StillParked(key, redrive, why) => {
                tracing::warn!(route, key = &*key, %redrive, why, "stays parked after a redrive");
            }
            Observation::Blocked(Some(blocked_by)) => match &blocked_by {
                BlockReason::Draining => tracing::info!(route, "drains"),
                other => tracing::error!(route, why = in_words(other, clock::mono()), "the route stands still"),
            },
            Observation::Blocked(None) => tracing::info!(route, "the route goes on"),
            Observation::DuplicateTickets(key, rows) => warn_doubled(route, &key, rows),
            Observation::Gone(key, sys_id) => tracing::warn!(route, key = &*key, sys_id, "the ticket is gone"),
            Observation::TokenRenewed(partition) => {
                tracing::warn!(route, partition, "a ledger record's delivery is unknown; takes a new token");
            }
        }
    }
}

fn warn_doubled(route: &str, key: &Key, rows: usize) {
    tracing::warn!(route, key = &**key, rows, "more than one ticket carries this key; the oldest is kept");
}

pub(super) fn in_words(blocked_by: &BlockReason, now: u64) -> String {
    match blocked_by {
        BlockReason::Unavailable(why) => format!("the instance is down, one probe at a time: {why}"),
        BlockReason::Unauthorised(why) => {
            format!("the instance refuses the credentials ({why}); set them right, the route goes on by itself")
        }
        BlockReason::Throttled(method, until) => {
            let seconds = until.saturating_sub(now).div_ceil(1000);
            format!("the instance asked to wait {seconds} s more before the next {}", method.name())
        }
        BlockReason::Braked(why) => format!("stopped by the brake: {why}; find the cause, then `nowbridge resume`"),
        BlockReason::Draining => "shutting down".into(),
    }
}
