//! Which events of a parked key pass (protocol rules 18, 19). The dead letters themselves are written in `reject`.

use super::Dispatcher;
use crate::engine::fold::Segment;
use crate::model::{Key, Now, RecordOrigin};

/// What happens to a segment of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParkDecision {
    /// The park does not concern it, or the key is not parked.
    Pass,
    DeadLetter,
    /// It passes unless the ticket is open, and the ticket's row was not seen lately.
    Look,
}

impl Dispatcher {
    /// What the park of a key means for a segment: only an opening event passes, and only if no ticket is open and no
    /// redrive is under way. Events of an announced park never pass.
    pub(super) fn park_decision(&self, partition: i32, key: &Key, segment: &Segment, now: Now) -> ParkDecision {
        let Some(p) = self.partitions.get(&partition) else { return ParkDecision::Pass };
        let Some(park) = p.parks.get(key) else { return ParkDecision::Pass };
        if segment.first_position().is_some_and(|first| park.dead_letter_may_exist(first)) {
            return ParkDecision::DeadLetter;
        }
        if !park.blocks(segment.origin) {
            return ParkDecision::Pass;
        }
        if segment.from_open.is_none() || park.active_run.is_some() {
            return ParkDecision::DeadLetter;
        }
        if !p.entries.get(key).is_some_and(|entry| entry.phase(&self.settings.states).is_open()) {
            return ParkDecision::Pass;
        }
        let seen = p.rows.get(key, now.mono, self.max_row_age(partition, key));
        let is_known = seen.is_some_and(|seen| seen.sent_at >= segment.newest_open_received_at());
        if is_known || self.settings.full_snapshot { ParkDecision::DeadLetter } else { ParkDecision::Look }
    }

    /// True if the key is parked, and events of this origin do not pass unless they open a ticket.
    pub(super) fn is_parked_for(&self, partition: i32, key: &Key, origin: RecordOrigin) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        p.parks.get(key).is_some_and(|park| park.blocks(origin))
    }
}
