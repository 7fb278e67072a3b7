//! The operator who resyncs the values of open tickets, as the `resync` command does: reads a key's entry and the
//! event that the entry's state comes from, and some time later appends that event to the input, for its values only.
//! One value is different each time, so that there is something to write; the reference ignores it.

use std::collections::BTreeMap;

use super::super::event::RecordContent;
use super::injection::key_name;
use super::publisher::partition_of;
use super::world::{World, trace_line};
use crate::model::{Action, Intent, Position, RecordOrigin};

/// A column that no alert sets.
const COLUMN: &str = "description";

impl World {
    /// Appends the event that was read before, and reads the next one for a key.
    pub(super) fn resync(&mut self, key: usize) {
        if let Some((entry, intent)) = self.pending_resync.take() {
            let partition = usize::from(intent.position.partition == 1);
            trace_line!(self, "resyncs the values of {} if its entry is still at {entry}", intent.key);
            self.coverage.resyncs += 1;
            let ordering = self.params.ordering;
            self.append(partition, RecordOrigin::Resync(entry), |_, offset| {
                let position = Position::new(intent.position.partition, offset, 0);
                let order = ordering.order(entry, intent.occurred_at);
                RecordContent::Intents(vec![Intent { position, order, ..intent }])
            });
        }
        self.pending_resync = self.newest_event(key);
    }

    /// The position of the entry of a key with an open ticket, and the values of the newest applied event.
    fn newest_event(&mut self, key: usize) -> Option<(Position, Intent)> {
        let partition = partition_of(key, self.params.partitions);
        let (loaded, name) = (self.logs[partition].load(i64::MAX, 0), key_name(key));
        let entry = loaded.entries.get(&name)?.into_owned();
        let in_progress = loaded.parks.contains_key(&name) || loaded.claims.contains_key(&name);
        if in_progress || !self.settings.states.phase(&entry.last_seen.state).is_open() {
            return None;
        }
        let records = self.input[partition][..self.visible[partition]].iter();
        let intents = records.filter_map(|r| match &r.content {
            RecordContent::Intents(all) => Some(all.iter().map(|intent| (r.origin, intent))),
            _ => None,
        });
        // A repeated event is as old as its first copy.
        let mut first: BTreeMap<u64, Position> = BTreeMap::new();
        let dated = intents.flatten().filter(|(_, intent)| intent.key == name).map(|(origin, intent)| {
            let id = intent.event_id.filter(|_| origin == RecordOrigin::Source);
            (id.map_or(intent.position, |id| *first.entry(id).or_insert(intent.position)), intent)
        });
        let newest = dated.filter(|(_, intent)| {
            intent.action.affects_state()
                && intent.position <= entry.position
                && intent.order.may_be_newest(entry.order)
        });
        // An event and its repetition are the same; either will do.
        let mut intent = newest.max_by_key(|(at, _)| *at)?.1.clone();
        intent.fields.retain(|(column, _)| **column != *COLUMN);
        let at = intent.fields.partition_point(|(column, _)| **column < *COLUMN);
        intent.fields.insert(at, (COLUMN.into(), format!("resync {}", self.coverage.resyncs)));
        let (action, closing, note, event_id) = (Action::Update, Vec::new(), None, None);
        Some((entry.position, Intent { action, closing, note, event_id, ..intent }))
    }
}
