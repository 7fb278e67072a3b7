//! Which events of a parked key pass (protocol rules 18, 19). The dead letters themselves are written in `reject`.

use super::Dispatcher;
use crate::engine::fold::Segment;
use crate::model::{Key, Now, RecordOrigin};

impl Dispatcher {
    /// True if a parked key blocks the segment: only an opening event passes, and only if no ticket is open and no
    /// redrive is under way. Events of an announced park never pass.
    pub(super) fn must_dead_letter(&self, partition: i32, key: &Key, segment: &Segment) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let park = p.parks.get(key);
        if park.zip(segment.first_position()).is_some_and(|(park, first)| park.dead_letter_may_exist(first)) {
            return true;
        }
        if !self.is_parked_for(partition, key, segment.origin) {
            return false;
        }
        let open = p.entries.get(key).is_some_and(|entry| entry.phase(&self.settings.states).is_open());
        open || segment.from_open.is_none() || park.is_some_and(|park| park.active_run.is_some())
    }

    /// True if the key is parked, and whether the opening event of the segment passes depends on the ticket's row, which
    /// was not seen lately.
    pub(super) fn needs_look_for_park(&self, partition: i32, key: &Key, segment: &Segment, now: Now) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let Some(park) = p.parks.get(key) else { return false };
        if !park.blocks(segment.origin)
            || park.active_run.is_some()
            || segment.from_open.is_none()
            || segment.first_position().is_some_and(|first| park.dead_letter_may_exist(first))
            || self.settings.full_snapshot
            || !p.entries.get(key).is_some_and(|entry| entry.phase(&self.settings.states).is_open())
        {
            return false;
        }
        let seen = p.rows.get(key, now.mono, self.max_row_age(partition, key));
        seen.is_none_or(|seen| seen.sent_at < segment.newest_open_received_at())
    }

    /// True if the key is parked, and events of this origin do not pass unless they open a ticket.
    pub(super) fn is_parked_for(&self, partition: i32, key: &Key, origin: RecordOrigin) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        p.parks.get(key).is_some_and(|park| park.blocks(origin))
    }
}
