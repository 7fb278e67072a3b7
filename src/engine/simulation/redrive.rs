//! The operator who puts dead letters back, as the `redrive` command does: all open letters of a key in the order of
//! their events, and the key's release behind them, at the present end of the input. Sometimes the cause was mended
//! before, sometimes not; in the end it is.

use std::collections::BTreeSet;

use super::super::event::{Content, DeadLetter, Received};
use super::alerts::{REFUSED_VALUE, partition_of};
use super::script::{key_index, key_name};
use super::world::{World, tell};
use crate::model::{Intent, Position, RecordOrigin, RedriveId};

/// A dead letter that stands.
#[derive(Debug)]
pub(super) struct Shelved {
    intent: Intent,
    /// Where its event stood before it was put back for the first time.
    original: Position,
    open: bool,
}

impl World {
    /// A dead letter has landed.
    pub(super) fn shelve(&mut self, letter: &DeadLetter) {
        // Whoever looks at the shelf takes two letters of one event for one.
        if letter.key.is_none() || self.shelf.iter().any(|s| s.intent.position == letter.position) {
            return;
        }
        let records = &self.input[usize::from(letter.position.partition == 1)];
        let record = records.binary_search_by_key(&letter.position.offset, |r| r.offset).ok().map(|at| &records[at]);
        let Some(Content::Intents(intents)) = record.map(|r| &r.content) else { return };
        let Some(intent) = intents.iter().find(|i| i.position == letter.position).cloned() else { return };
        let original = self.original(letter.position);
        self.shelf.push(Shelved { intent, original, open: true });
    }

    /// True while letters of any key could be put back.
    pub(super) fn has_open_letters(&self) -> bool {
        self.shelf.iter().any(|s| s.open)
    }

    /// Puts the open letters of all keys back.
    pub(super) fn redrive_all(&mut self) {
        (0..3).for_each(|key| self.redrive(key));
    }

    /// Puts the open letters of a key back, unless the bridge is not at the end of the last run yet: of a letter that it
    /// refuses again this one would know nothing, and set later ones before it.
    pub(super) fn redrive(&mut self, key: usize) {
        let (name, partition) = (key_name(key), partition_of(key, self.odds.partitions));
        if !self.calm && self.group.offset[partition] < self.redriven_to[partition] {
            return;
        }
        let mut letters: Vec<&mut Shelved> =
            self.shelf.iter_mut().filter(|s| s.open && key_index(&s.intent.key) == key).collect();
        if letters.is_empty() {
            return;
        }
        letters.sort_by_key(|s| s.original);
        self.redrives += 1;
        let id = RedriveId(self.redrives);
        let mended = self.calm || self.rng.bool();
        let upto = letters.iter().map(|s| s.intent.position).max().unwrap_or(Position::new(0, 0, 0));
        let mut back = Vec::new();
        for letter in letters {
            letter.open = false;
            let mut intent = letter.intent.clone();
            for (_, value) in intent.fields.iter_mut().filter(|(_, value)| mended && value == REFUSED_VALUE) {
                *value = "mended".into();
            }
            back.push((RecordOrigin::Redrive(id), Some((intent, letter.original))));
        }
        back.push((RecordOrigin::Release(id, upto), None));
        self.coverage.redrives += 1;
        self.coverage.redriven += back.len() as u64 - 1;
        tell!(self, "redrives {} letters of {name} up to {upto}", back.len() - 1);
        for (origin, event) in back {
            self.append(partition, origin, |world, offset| match event {
                Some((mut intent, original)) => {
                    intent.position = Position::new(intent.position.partition, offset, intent.position.index);
                    world.originals.insert(intent.position, original);
                    Content::Intents(vec![intent])
                }
                None => Content::Release(name.clone()),
            });
        }
        let end = self.visible[partition];
        self.redriven_to[partition] = self.input[partition][..end].last().map_or(0, |r| r.offset + 1);
    }

    /// Puts a record at the present end of the input.
    pub(super) fn append(
        &mut self,
        partition: usize,
        origin: RecordOrigin,
        content: impl FnOnce(&mut Self, i64) -> Content,
    ) {
        let at = self.visible[partition];
        let offset = self.input[partition][..at].last().map_or(0, |r| r.offset + 1);
        self.make_room(partition, at, 1);
        let raw = super::alerts::raw(partition, offset);
        let content = content(self, offset);
        self.input[partition].insert(at, Received { offset, raw, origin, content });
        self.visible[partition] += 1;
        if at <= self.first_half[partition] {
            self.first_half[partition] += 1;
        }
    }

    /// What is not published yet comes later.
    fn make_room(&mut self, partition: usize, at: usize, count: i64) {
        for record in &mut self.input[partition][at..] {
            record.offset += count;
            record.raw = super::alerts::raw(partition, record.offset);
            if let Content::Intents(intents) = &mut record.content {
                intents.iter_mut().for_each(|intent| intent.position.offset += count);
            }
        }
    }

    /// Where the event at this position stood first.
    pub(super) fn original(&self, position: Position) -> Position {
        self.originals.get(&position).copied().unwrap_or(position)
    }

    /// Of a key with dead letters, what the tickets say depends on who was first; but in the end every letter is put back, so
    /// every note stands that came behind the alert's first opening.
    pub(super) fn judge_kept(&self, key: usize, notes: &[Position]) -> Result<(), String> {
        let name = key_name(key);
        let lives_on = !self.raced[key] && !self.handled[key] && !self.expired.contains(&name);
        if !lives_on || self.odds.hold_down > 0 || !self.scenario.redrives {
            return Ok(());
        }
        let stands: BTreeSet<Position> = notes.iter().map(|at| self.original(*at)).collect();
        let source = self.input.iter().flatten().filter(|record| record.origin == RecordOrigin::Source);
        let intents = source.filter_map(|r| if let Content::Intents(all) = &r.content { Some(all) } else { None });
        let of_key: Vec<&Intent> = intents.flatten().filter(|intent| intent.key == name).collect();
        let standing = of_key.iter().filter(|intent| stands.contains(&intent.position));
        let known: BTreeSet<u64> = standing.filter_map(|intent| intent.event_id).collect();
        let (mut opened, mut ids) = (false, BTreeSet::new());
        for intent in of_key {
            opened |= intent.action.opens();
            // Of a repeated event the one or the other, and nothing where the first found no ticket.
            let repeats = intent.event_id.is_some_and(|id| !ids.insert(id) || known.contains(&id));
            if opened && !repeats && intent.note.is_some() && !stands.contains(&intent.position) {
                return Err(format!("k{key}: the note of {} is lost", intent.position));
            }
        }
        Ok(())
    }

    /// Where every letter of a key has been put back in the end: no note stands twice, whichever of its positions it
    /// stands by, and none overtook an older one. An opening event of the source may pass letters, and then the key is
    /// free; of such keys the order is not judged.
    pub(super) fn judge_redriven(&self, key: usize, notes: &[Position], events: &[Intent]) -> Result<(), String> {
        let mut originals: Vec<Position> = notes.iter().map(|at| self.original(*at)).collect();
        let first_dead = events.iter().map(|e| e.position).find(|at| self.dead.contains(at));
        let passes =
            |e: &Intent| Some(e.position) > first_dead && e.action.opens() && !self.originals.contains_key(&e.position);
        if !events.iter().any(passes) {
            let overtaken = originals.windows(2).find(|pair| pair[1] < pair[0]);
            if let Some(pair) = overtaken {
                return Err(format!("k{key}: the note of {} stands behind that of {}", pair[1], pair[0]));
            }
        }
        originals.sort_unstable();
        match originals.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("k{key}: the note of {} stands twice", pair[0])),
            None => Ok(()),
        }
    }
}
