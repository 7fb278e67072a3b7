//! What needs no write: events that come to nothing, that the ticket stands for already, or that are left out. They are
//! resolved, and what later events need to know of them goes into the entry first (protocol rules 16, 21).

use super::Dispatcher;
use crate::engine::event::Effect;
use crate::engine::fold::{Segment, remember};
use crate::engine::lane::{Settlement, Stage};
use crate::model::{Entry, Key, Now};

/// Why an alert gets no ticket that was over within its hold-down.
pub(super) const TOO_BRIEF: &str = "over before it lasted as long as the hold-down";

impl Dispatcher {
    /// Nothing was written for these events, on purpose.
    pub(super) fn settle_without_write(&mut self, partition: i32, segment: &Segment) {
        for event in &segment.events {
            self.resolve(partition, event.position.offset, event.bytes);
        }
    }

    /// The ticket stands as the events want it, but their times and ids count for later events: the entry that remembers
    /// them, where they are news. Of several events of one time the first may be repeated after the last.
    pub(super) fn news_of_unchanged(
        &self,
        partition: i32,
        key: &Key,
        segment: &Segment,
        resolved_at: Option<i64>,
        now: Now,
    ) -> Option<Entry> {
        let p = self.partitions.get(&partition)?;
        let old = p.entries.get(key)?;
        let occurred_at = old.occurred_at.max(segment.occurred_at());
        let ids = || segment.events.iter().filter_map(|event| event.event_id);
        let knows_all = ids().all(|id| old.event_ids.contains(&id));
        if occurred_at == old.occurred_at && resolved_at == old.resolved_at && knows_all {
            return None;
        }
        let position = segment.hi().unwrap_or(old.position).max(old.position);
        let (token, written_at) = (p.token, now.unix);
        let mut entry = Entry { token, position, occurred_at, resolved_at, written_at, ..old.into_owned() };
        entry.partial = None;
        remember(&mut entry.event_ids, ids());
        Some(entry)
    }

    /// Nothing is written to the ticket; the entry is, before anything of the segment is resolved.
    pub(super) fn settle_unchanged(
        &mut self,
        partition: i32,
        key: &Key,
        segment: Segment,
        entry: Entry,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(lane) = self.lane(partition, key) else { return };
        lane.held.put_back_apart(segment);
        let settlement = Settlement { entry, outcome: "unchanged", fields: Vec::new(), notes: 0, warnings: Vec::new() };
        self.stage(partition, key, Stage::Settled(Box::new(settlement)));
        self.write_entry(partition, key, now, out);
    }

    /// The entry of a key with a ticket, moved past an alert that is left out: of its events read again, the ending alone
    /// would be applied to the old ticket.
    pub(super) fn past_what_is_left_out(
        &self,
        partition: i32,
        key: &Key,
        segment: &Segment,
        now: Now,
    ) -> Option<Entry> {
        let p = self.partitions.get(&partition)?;
        let old = p.entries.get(key)?;
        let position = segment.hi().filter(|hi| *hi > old.position)?;
        Some(Entry { token: p.token, position, written_at: now.unix, partial: None, ..old.into_owned() })
    }
}
