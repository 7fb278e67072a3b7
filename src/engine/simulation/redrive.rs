//! The operator who redrives dead letters, as the `redrive` command does: appends all open dead letters of a key in
//! the order of their events, and then the key's release, to the current end of the input. Sometimes the cause was
//! fixed before, sometimes not; at the end it always is.

use std::collections::BTreeSet;

use super::super::event::{DeadLetter, MappedRecord, RecordContent};
use super::injection::{key_index, key_name};
use super::publisher::{REJECTED_VALUE, partition_of};
use super::world::{World, trace_line};
use crate::model::{Intent, Position, RecordOrigin, RedriveId};

/// A dead letter.
#[derive(Debug)]
pub(super) struct StoredLetter {
    intent: Intent,
    /// The position of its event before the first redrive.
    original: Position,
    open: bool,
}

impl World {
    /// Stores a dead letter that was written.
    pub(super) fn store_dead_letter(&mut self, letter: &DeadLetter) {
        // Two dead letters of one event count as one.
        if letter.key.is_none() || self.dead_letters.iter().any(|s| s.intent.position == letter.position) {
            return;
        }
        let records = &self.input[usize::from(letter.position.partition == 1)];
        let record = records.binary_search_by_key(&letter.position.offset, |r| r.offset).ok().map(|at| &records[at]);
        let Some(RecordContent::Intents(intents)) = record.map(|r| &r.content) else { return };
        let Some(intent) = intents.iter().find(|i| i.position == letter.position).cloned() else { return };
        let original = self.original(letter.position);
        self.dead_letters.push(StoredLetter { intent, original, open: true });
    }

    /// True while there are dead letters to redrive.
    pub(super) fn has_open_letters(&self) -> bool {
        self.dead_letters.iter().any(|s| s.open)
    }

    /// Redrives the open dead letters of all keys.
    pub(super) fn redrive_all(&mut self) {
        (0..3).for_each(|key| self.redrive(key));
    }

    /// Redrives the open dead letters of a key, unless the bridge has not reached the end of the last run yet: this
    /// run would not know of a dead letter that the bridge rejects again, and would put later ones before it.
    pub(super) fn redrive(&mut self, key: usize) {
        let (name, partition) = (key_name(key), partition_of(key, self.params.partitions));
        if !self.faults_over && self.group.offset[partition] < self.redrive_end[partition] {
            return;
        }
        let mut letters: Vec<&mut StoredLetter> =
            self.dead_letters.iter_mut().filter(|s| s.open && key_index(&s.intent.key) == key).collect();
        if letters.is_empty() {
            return;
        }
        letters.sort_by_key(|s| s.original);
        self.redrives += 1;
        let id = RedriveId(self.redrives);
        let fixed = self.faults_over || self.rng.bool();
        let up_to = letters.iter().map(|s| s.intent.position).max().unwrap_or(Position::new(0, 0, 0));
        let mut to_append = Vec::new();
        for letter in letters {
            letter.open = false;
            let mut intent = letter.intent.clone();
            for (_, value) in intent.fields.iter_mut().filter(|(_, value)| fixed && value == REJECTED_VALUE) {
                *value = "fixed".into();
            }
            to_append.push((RecordOrigin::Redrive(id), Some((intent, letter.original))));
        }
        to_append.push((RecordOrigin::Release(id, up_to), None));
        self.coverage.redrives += 1;
        self.coverage.redriven += to_append.len() as u64 - 1;
        trace_line!(self, "redrives {} dead letters of {name} up to {up_to}", to_append.len() - 1);
        for (origin, event) in to_append {
            self.append(partition, origin, |world, offset| match event {
                Some((mut intent, original)) => {
                    intent.position = Position::new(intent.position.partition, offset, intent.position.index);
                    world.original_positions.insert(intent.position, original);
                    RecordContent::Intents(vec![intent])
                }
                None => RecordContent::Release(name.clone()),
            });
        }
        let end = self.visible[partition];
        self.redrive_end[partition] = self.input[partition][..end].last().map_or(0, |r| r.offset + 1);
    }

    /// Appends a record to the current end of the input.
    pub(super) fn append(
        &mut self,
        partition: usize,
        origin: RecordOrigin,
        content: impl FnOnce(&mut Self, i64) -> RecordContent,
    ) {
        let at = self.visible[partition];
        let offset = self.input[partition][..at].last().map_or(0, |r| r.offset + 1);
        self.shift_unpublished(partition, at, 1);
        let raw = super::publisher::raw(partition, offset);
        let content = content(self, offset);
        self.input[partition].insert(at, MappedRecord { offset, raw, origin, content });
        self.visible[partition] += 1;
        if at <= self.published_before_pause[partition] {
            self.published_before_pause[partition] += 1;
        }
    }

    /// Moves the records that are not published yet.
    fn shift_unpublished(&mut self, partition: usize, at: usize, count: i64) {
        for record in &mut self.input[partition][at..] {
            record.offset += count;
            record.raw = super::publisher::raw(partition, record.offset);
            if let RecordContent::Intents(intents) = &mut record.content {
                for intent in intents {
                    intent.position.offset += count;
                    intent.order = self.params.ordering.order(intent.position, intent.occurred_at);
                }
            }
        }
    }

    /// The original position of the event at this position.
    pub(super) fn original(&self, position: Position) -> Position {
        self.original_positions.get(&position).copied().unwrap_or(position)
    }

    /// Checks that no note of a key with dead letters is lost. The tickets depend on the order in time, but at the
    /// end every dead letter is redriven, so every note after the alert's first opening must be there.
    pub(super) fn check_no_note_lost(&self, key: usize, notes: &[Position]) -> Result<(), String> {
        let name = key_name(key);
        let is_checked = !self.user_raced[key] && !self.user_changed_state[key] && !self.expired.contains(&name);
        if !is_checked || self.params.hold_down > 0 || !self.scenario.redrives {
            return Ok(());
        }
        let present: BTreeSet<Position> = notes.iter().map(|at| self.original(*at)).collect();
        let source = self.input.iter().flatten().filter(|record| record.origin == RecordOrigin::Source);
        let intents =
            source.filter_map(|r| if let RecordContent::Intents(all) = &r.content { Some(all) } else { None });
        let of_key: Vec<&Intent> = intents.flatten().filter(|intent| intent.key == name).collect();
        let present_intents = of_key.iter().filter(|intent| present.contains(&intent.position));
        let known: BTreeSet<u64> = present_intents.filter_map(|intent| intent.event_id).collect();
        let (mut opened, mut ids) = (false, BTreeSet::new());
        for intent in of_key {
            opened |= intent.action.opens();
            // Of a repeated event either copy may have written the note, and neither if the first found no ticket.
            let repeats = intent.event_id.is_some_and(|id| !ids.insert(id) || known.contains(&id));
            if opened && !repeats && intent.note.is_some() && !present.contains(&intent.position) {
                return Err(format!("k{key}: the note of {} is missing", intent.position));
            }
        }
        Ok(())
    }

    /// Checks the notes of a key whose dead letters were all redriven: no note is there twice, under any of its
    /// positions, and none comes before an older one. An opening event of the source may pass dead letters, which
    /// releases the key; the order of such keys is not checked.
    pub(super) fn check_redriven_notes(&self, key: usize, notes: &[Position], events: &[Intent]) -> Result<(), String> {
        let mut original_positions: Vec<Position> = notes.iter().map(|at| self.original(*at)).collect();
        let first_dead = events.iter().map(|e| e.position).find(|at| self.not_applied.contains(at));
        let passes = |e: &Intent| {
            Some(e.position) > first_dead && e.action.opens() && !self.original_positions.contains_key(&e.position)
        };
        if !events.iter().any(passes) {
            let overtaken = original_positions.windows(2).find(|pair| pair[1] < pair[0]);
            if let Some(pair) = overtaken {
                return Err(format!("k{key}: the note of {} is after that of {}", pair[1], pair[0]));
            }
        }
        original_positions.sort_unstable();
        match original_positions.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("k{key}: the note of {} is there twice", pair[0])),
            None => Ok(()),
        }
    }
}
