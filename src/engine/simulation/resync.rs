//! The operator who has the values of open tickets written anew, as the `resync` command does: looks at a key's entry and
//! at the event that made it what it is, and some time later puts that event at the end of the input, for its values
//! only. One value is another each time, so that there is something to write; the reference knows nothing of it.

use std::collections::BTreeMap;

use super::super::event::Content;
use super::alerts::partition_of;
use super::script::key_name;
use super::world::{World, tell};
use crate::model::{Action, Intent, Position, RecordOrigin};

/// A column that no alert names.
const COLUMN: &str = "description";

impl World {
    /// Puts in what was looked at before, and looks at a key.
    pub(super) fn resync(&mut self, key: usize) {
        if let Some((entry, intent)) = self.resync.take() {
            let partition = usize::from(intent.position.partition == 1);
            tell!(self, "has the values of {} written anew, if {entry} is its newest", intent.key);
            self.coverage.resyncs += 1;
            self.append(partition, RecordOrigin::Resync(entry), |_, offset| {
                let position = Position::new(intent.position.partition, offset, 0);
                Content::Intents(vec![Intent { position, ..intent }])
            });
        }
        self.resync = self.newest_event(key);
    }

    /// Where the entry of a key with an open ticket stands, and the values of the newest event that was applied.
    fn newest_event(&mut self, key: usize) -> Option<(Position, Intent)> {
        let partition = partition_of(key, self.odds.partitions);
        let (loaded, name) = (self.logs[partition].load(i64::MAX, 0), key_name(key));
        let entry = loaded.entries.get(&name)?.into_owned();
        let under_way = loaded.parks.contains_key(&name) || loaded.claims.contains_key(&name);
        if under_way || !self.settings.states.phase(&entry.seen.state).is_open() {
            return None;
        }
        let records = self.input[partition][..self.visible[partition]].iter();
        let intents = records.filter_map(|r| match &r.content {
            Content::Intents(all) => Some(all.iter().map(|intent| (r.origin, intent))),
            _ => None,
        });
        // A repeated event is as old as it was when it came first.
        let mut first: BTreeMap<u64, Position> = BTreeMap::new();
        let dated = intents.flatten().filter(|(_, intent)| intent.key == name).map(|(origin, intent)| {
            let id = intent.event_id.filter(|_| origin == RecordOrigin::Source);
            (id.map_or(intent.position, |id| *first.entry(id).or_insert(intent.position)), intent)
        });
        let newest = dated.filter(|(_, intent)| {
            intent.action.affects_state()
                && intent.position <= entry.position
                && intent.occurred_at == entry.occurred_at
        });
        // Of an event and its repetition the one or the other: they are the same.
        let mut intent = newest.max_by_key(|(at, _)| *at)?.1.clone();
        intent.fields.retain(|(column, _)| **column != *COLUMN);
        let at = intent.fields.partition_point(|(column, _)| **column < *COLUMN);
        intent.fields.insert(at, (COLUMN.into(), format!("resync {}", self.coverage.resyncs)));
        let (action, closing, note, event_id) = (Action::Update, Vec::new(), None, None);
        Some((entry.position, Intent { action, closing, note, event_id, ..intent }))
    }
}
