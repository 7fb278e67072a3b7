//! Events that need no write: they have no ticket, the ticket is already up to date, or they are skipped. They are
//! resolved; what later events need to know of them is written to the entry first (protocol rules 16, 21).

use super::Dispatcher;
use crate::engine::event::Effect;
use crate::engine::fold::{Segment, remember_ids};
use crate::engine::lane::{Settlement, Stage};
use crate::model::{Entry, Key, Now};

/// Why an alert that was over within its hold-down gets no ticket.
pub(super) const SHORT_LIVED: &str = "the alert was over within its hold-down";

impl Dispatcher {
    /// Resolves events for which nothing is written.
    pub(super) fn resolve_without_write(&mut self, partition: i32, segment: &Segment) {
        for event in &segment.events {
            self.resolve(partition, event.position.offset, event.bytes);
        }
    }

    /// The ticket is already up to date, but later events are compared with the times and ids of these. Returns the
    /// entry that contains them, or `None` if it would be the same. (Of several events of one time, the first may be
    /// repeated after the last.)
    pub(super) fn entry_for_unchanged(
        &self,
        partition: i32,
        key: &Key,
        segment: &Segment,
        resolved_at: Option<i64>,
        now: Now,
    ) -> Option<Entry> {
        let p = self.partitions.get(&partition)?;
        let old = p.entries.get(key)?;
        let order = old.order.newest(segment.order());
        let ids = || segment.events.iter().filter_map(|event| event.event_id);
        let all_known = ids().all(|id| old.event_ids.contains(&id));
        let episode = segment.episode.or(old.episode);
        let ended_by_user = old.ended_by_user && segment.closed_at().is_none();
        // A place in the log is known without the entry.
        if (order == old.order || !order.is_time())
            && resolved_at == old.resolved_at
            && all_known
            && episode == old.episode
            && ended_by_user == old.ended_by_user
        {
            return None;
        }
        let position = segment.last_position().unwrap_or(old.position).max(old.position);
        let (token, written_at) = (p.token, now.unix);
        let mut entry = Entry {
            token,
            position,
            partial_note: None,
            order,
            resolved_at,
            episode,
            ended_by_user,
            written_at,
            ..old.into_owned()
        };
        remember_ids(&mut entry.event_ids, ids());
        Some(entry)
    }

    /// Writes the entry, but nothing to the ticket. The segment is resolved once the entry is acked.
    pub(super) fn write_entry_only(
        &mut self,
        partition: i32,
        key: &Key,
        segment: Segment,
        entry: Entry,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(lane) = self.lane(partition, key) else { return };
        lane.in_flight.requeue_unfolded(segment);
        let settlement = Settlement { entry, outcome: "unchanged", fields: Vec::new(), notes: 0, warnings: Vec::new() };
        self.stage(partition, key, Stage::EntryPending(Box::new(settlement)));
        self.write_entry(partition, key, now, out);
    }

    /// The entry of a key with a ticket, moved past a skipped alert: if the alert's end were read again by itself, it
    /// would be applied to the old ticket.
    pub(super) fn entry_past_skipped(&self, partition: i32, key: &Key, segment: &Segment, now: Now) -> Option<Entry> {
        let p = self.partitions.get(&partition)?;
        let old = p.entries.get(key)?;
        let position = segment.last_position().filter(|last| *last > old.position)?;
        Some(Entry { token: p.token, position, written_at: now.unix, partial_note: None, ..old.into_owned() })
    }
}
