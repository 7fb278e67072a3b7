//! The state of a route in numbers, for metrics, the console and the estimate of the time to drain.

use std::collections::BTreeMap;

use super::Dispatcher;
use crate::engine::partition::PartitionPhase;
use crate::engine::priority::LaneClass;
use crate::model::Now;

/// The state of a route in numbers, for metrics and the console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Assigned partitions, those that are loading included.
    pub partitions: usize,
    pub loading_partitions: usize,
    /// Partitions whose lease holds.
    pub leased_partitions: usize,
    /// Events received and not resolved.
    pub unresolved_events: usize,
    /// Bytes of the original records of unresolved events.
    pub unresolved_bytes: usize,
    /// Keys with work.
    pub lanes: usize,
    /// Lanes that wait for a turn, a permit or an instant.
    pub waiting_lanes: usize,
    /// Waiting lanes that are critical: they are next.
    pub critical_lanes: usize,
    /// Lanes with an ambiguous write.
    pub ambiguous_lanes: usize,
    pub parked_keys: usize,
    /// Keys with an entry.
    pub entries: usize,
    pub requests_in_flight: usize,
    pub watermarks: BTreeMap<i32, i64>,
}

impl Dispatcher {
    /// The state of the route in numbers.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let used = self.budget.used();
        let mut s = Snapshot {
            unresolved_events: used.events,
            unresolved_bytes: used.bytes,
            requests_in_flight: self.pending_requests.len(),
            ..Snapshot::default()
        };
        for (&number, p) in &self.partitions {
            s.partitions += 1;
            s.loading_partitions += usize::from(p.phase == PartitionPhase::Loading);
            s.leased_partitions += usize::from(p.lease_until(self.last_poll, &self.settings) > now.mono);
            s.lanes += p.lanes.len();
            s.waiting_lanes += p.lanes.values().filter(|l| l.is_waiting()).count();
            s.critical_lanes += p.lanes.values().filter(|l| l.is_waiting() && l.class == LaneClass::Critical).count();
            s.ambiguous_lanes += p.lanes.values().filter(|l| l.is_ambiguous()).count();
            s.parked_keys += p.parks.len();
            s.entries += p.entries.len();
            s.watermarks.insert(number, p.tracker.watermark());
        }
        s
    }
}
