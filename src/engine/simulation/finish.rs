//! The end of a history: when it is over, and whether every ticket is as it must be.

use std::fmt::Write as _;

use super::super::event::{Content, Received};
use super::super::invariants;
use super::alerts::COLUMNS;
use super::instance::Ticket;
use super::reference::{Expected, Reference};
use super::script::key_index;
use super::wire::read_marker;
use super::world::World;
use crate::model::{Intent, Position, RecordOrigin};

/// With a hold-down things may go many ways; a key with more than so many is not judged by them.
const WAYS: usize = 400;

impl World {
    /// True once everything is resolved; finds that it takes too long.
    pub(super) fn finished(&mut self) -> bool {
        let all = (0..self.odds.partitions).all(|p| {
            self.visible[p] == self.input[p].len()
                && self.input[p].last().is_none_or(|last| self.group.offset[p] > last.offset)
        });
        if all && self.under_way.is_empty() {
            return true;
        }
        let span = self.settings.request_deadline + self.settings.settle_time;
        let bound = self.calm_at + 6 * span + 4 * self.settings.session_timeout + 180_000;
        if self.now > bound {
            self.violate(format!(
                "not everything is resolved {} s after the last fault: committed {:?}",
                (self.now - self.calm_at) / 1000,
                self.group.offset
            ));
        }
        false
    }

    /// Compares every key's tickets with the reference.
    pub(super) fn judge_end(&mut self) {
        for partition in 0..self.odds.partitions {
            let last = self.input[partition].last().map_or(0, |r| r.offset + 1);
            if self.group.offset[partition] > last {
                self.violate(format!("partition {partition} is committed beyond its end"));
            }
        }
        for key in 0..3 {
            if let Err(wrong) = self.judge_key(key) {
                self.violate(wrong);
            }
        }
    }

    fn judge_key(&mut self, key: usize) -> Result<(), String> {
        let mut notes: Vec<(Position, u32)> = Vec::new();
        for ticket in self.instance.of_key(key).filter(|t| !t.deleted) {
            notes.extend(ticket.journal.iter().filter_map(|l| read_marker(&l.marker)));
        }
        invariants::notes(notes.iter().filter(|(_, part)| *part == 1).map(|(at, _)| *at))
            .map_err(|broken| format!("k{key}: {broken}"))?;
        // Where a person moved the ticket, or something was refused, what is right depends on who was first.
        let events = self.events_of(key);
        let first_parts: Vec<Position> = notes.iter().filter(|(_, part)| *part == 1).map(|(at, _)| *at).collect();
        self.judge_redriven(key, &first_parts, &events)?;
        self.judge_kept(key, &first_parts)?;
        if self.raced[key] || self.handled[key] || events.iter().any(|e| self.dead.contains(&e.position)) {
            return Ok(());
        }
        let mut reference = Reference::new(self.settings.reopen_window, self.odds.hold_down);
        let pause_at = self.pause_at();
        let mut paused = self.odds.pause == 0;
        let tickets: Vec<&Ticket> = self.instance.of_key(key).collect();
        let notes: Vec<_> = tickets.iter().map(|ticket| notes_of(ticket)).collect();
        for event in &events {
            if !paused && Some(event.position) >= pause_at[usize::from(event.position.partition == 1)] {
                reference.pause();
                paused = true;
            }
            reference.apply(event);
            if self.odds.hold_down > 0 {
                reference.leave_out_what_differs(&notes);
                if reference.ways.len() > WAYS {
                    self.coverage.too_many_ways += 1;
                    return Ok(());
                }
            }
        }
        let mut why = String::new();
        for way in reference.ways.iter().filter(|way| way.may_end()) {
            match self.compare(&way.tickets, &tickets) {
                Ok(()) => return Ok(()),
                Err(wrong) => {
                    let _ = write!(why, "; {wrong}");
                }
            }
        }
        Err(format!("k{key} does not stand as it must{why}"))
    }

    fn events_of(&self, key: usize) -> Vec<Intent> {
        let mut events = Vec::new();
        // A resync brings nothing new.
        let told = |record: &&Received| !matches!(record.origin, RecordOrigin::Resync(_));
        for record in self.input.iter().flatten().filter(told) {
            if let Content::Intents(intents) = &record.content {
                events.extend(intents.iter().filter(|i| key_index(&i.key) == key).cloned());
            }
        }
        events
    }

    /// First position after the long pause, by partition.
    fn pause_at(&self) -> [Option<Position>; 2] {
        let mut first = [None, None];
        let half = self.scenario.records / 2;
        let before = self.first_half;
        for partition in 0..2 {
            first[partition] =
                self.input[partition].get(before[partition]).map(|r| Position::new(partition as i32, r.offset, 0));
        }
        let _ = half;
        first
    }

    fn compare(&self, expected: &[Expected], tickets: &[&Ticket]) -> Result<(), String> {
        if expected.len() != tickets.len() {
            return Err(format!("{} tickets where {} belong", tickets.len(), expected.len()));
        }
        for (must, is) in expected.iter().zip(tickets) {
            let number = &is.number;
            let phase = self.instance.phase(is);
            if phase != must.phase {
                return Err(format!("{number} is {phase:?} where {:?} belongs", must.phase));
            }
            for (at, name) in COLUMNS.iter().enumerate() {
                let ruled = self.instance.rule.is_some_and(|(column, _)| column == *name);
                let stands = is.values.iter().find(|v| *v.column == **name).map(|v| v.text.clone());
                if stands != must.values[at] && !ruled && !is.touched {
                    return Err(format!("{number} has {name} {stands:?} where {:?} belongs", must.values[at]));
                }
            }
            let notes = notes_of(is);
            if notes != must.notes {
                return Err(format!("{number} has the notes {notes:?} where {:?} belong", must.notes));
            }
        }
        Ok(())
    }
}

/// The notes of a ticket, parts joined.
fn notes_of(ticket: &Ticket) -> Vec<(Position, String)> {
    let mut notes: Vec<(Position, String)> = Vec::new();
    for line in &ticket.journal {
        let Some((position, _)) = read_marker(&line.marker) else { continue };
        match notes.last_mut() {
            Some((last, whole)) if *last == position => whole.push_str(&line.text),
            _ => notes.push((position, line.text.clone())),
        }
    }
    // What the engine adds where an alert flaps is not in the events.
    for (_, text) in &mut notes {
        if let Some(at) = text.find("Flapping: ") {
            text.truncate(at);
            text.truncate(text.trim_end_matches('\n').len());
        }
    }
    notes.retain(|(_, text)| !text.is_empty());
    notes
}
