//! The end of a history: when it is reached, and whether every ticket is as expected.

use std::fmt::Write as _;

use super::super::event::{MappedRecord, RecordContent};
use super::super::invariants;
use super::injection::key_index;
use super::instance::Ticket;
use super::publisher::COLUMNS;
use super::reference::{Expected, Reference};
use super::requests::read_marker;
use super::world::World;
use crate::model::{Intent, Position, RecordOrigin};

/// A hold-down allows many alternatives. A key with more than this number is not checked against them.
const MAX_ALTERNATIVES: usize = 400;

/// Milliseconds. The clocks of members and instance differ by less than this, as far as an owner can know it.
const CLOCK_MARGIN: i64 = 3_000;

impl World {
    /// True once everything is resolved. Reports a violation if that takes too long.
    pub(super) fn finished(&mut self) -> bool {
        let all = (0..self.params.partitions).all(|p| {
            self.visible[p] == self.input[p].len()
                && self.input[p].last().is_none_or(|last| self.group.offset[p] > last.offset)
        });
        if all && self.in_flight.is_empty() {
            return true;
        }
        let span = self.settings.request_deadline + self.settings.max_transaction_time;
        let bound = self.faults_over_at + 6 * span + 4 * self.settings.session_timeout + 180_000;
        if self.now > bound {
            self.report_violation(format!(
                "not everything is resolved {} s after the last fault: committed {:?}",
                (self.now - self.faults_over_at) / 1000,
                self.group.offset
            ));
        }
        false
    }

    /// Compares the tickets of every key with the reference.
    pub(super) fn check_final_state(&mut self) {
        for partition in 0..self.params.partitions {
            let last = self.input[partition].last().map_or(0, |r| r.offset + 1);
            if self.group.offset[partition] > last {
                self.report_violation(format!("partition {partition} is committed beyond its end"));
            }
        }
        for key in 0..3 {
            if let Err(mismatch) = self.check_key(key) {
                self.report_violation(mismatch);
            }
        }
    }

    fn check_key(&mut self, key: usize) -> Result<(), String> {
        let mut notes: Vec<(Position, u32)> = Vec::new();
        for ticket in self.instance.tickets_of(key).filter(|t| !t.deleted) {
            notes.extend(ticket.journal.iter().filter_map(|l| read_marker(&l.marker)));
        }
        invariants::notes_in_order(notes.iter().filter(|(_, part)| *part == 1).map(|(at, _)| *at))
            .map_err(|broken| format!("k{key}: {broken}"))?;
        // If a user changed the ticket's state, or a record was rejected, the expected state depends on the order in
        // time.
        let events = self.events_of(key);
        let first_parts: Vec<Position> = notes.iter().filter(|(_, part)| *part == 1).map(|(at, _)| *at).collect();
        self.check_redriven_notes(key, &first_parts, &events)?;
        self.check_no_note_lost(key, &first_parts)?;
        self.check_open_after_user(key, &events)?;
        self.check_kept_after_user(key, &events)?;
        if self.user_raced[key]
            || self.user_changed_state[key]
            || events.iter().any(|e| self.not_applied.contains(&e.position))
        {
            return Ok(());
        }
        let mut reference = Reference::new(self.settings.reopen_window, self.params.hold_down);
        let pause_at = self.pause_at();
        let mut paused = self.params.long_pause == 0;
        let tickets: Vec<&Ticket> = self.instance.tickets_of(key).collect();
        let notes: Vec<_> = tickets.iter().map(|ticket| notes_of(ticket)).collect();
        for event in &events {
            if !paused && Some(event.position) >= pause_at[usize::from(event.position.partition == 1)] {
                reference.pause();
                paused = true;
            }
            reference.apply(event);
            if self.params.hold_down > 0 {
                reference.drop_mismatches(&notes);
                if reference.alternatives.len() > MAX_ALTERNATIVES {
                    self.coverage.too_many_alternatives += 1;
                    return Ok(());
                }
            }
        }
        let mut mismatches = String::new();
        for alternative in reference.alternatives.iter().filter(|alternative| alternative.is_complete()) {
            match self.compare(&alternative.tickets, &tickets) {
                Ok(()) => return Ok(()),
                Err(mismatch) => {
                    let _ = write!(mismatches, "; {mismatch}");
                }
            }
        }
        Err(format!("k{key} differs from the reference{mismatches}"))
    }

    /// A user ended the ticket, and the alert fired again after that: it must have an open ticket, unless it is over.
    fn check_open_after_user(&mut self, key: usize, events: &[Intent]) -> Result<(), String> {
        let Some(ended_at) = self.user_ended_at[key] else { return Ok(()) };
        let newest = events
            .iter()
            .filter(|event| event.action.affects_state())
            .max_by_key(|event| event.order.to_number().unsigned_abs());
        let Some(newest) = newest.filter(|event| event.action.opens()) else { return Ok(()) };
        let at = newest.occurred_at;
        let equally_new = events.iter().filter(|e| e.action.affects_state() && e.order == newest.order).count() > 1;
        let repeated = newest.event_id.is_some() && events.iter().filter(|e| e.event_id == newest.event_id).count() > 1;
        let dead_lettered = events.iter().any(|event| self.not_applied.contains(&event.position));
        let ended_at = super::world::BASE + i64::try_from(ended_at).unwrap_or(0);
        let is_known = |episode| events.iter().any(|e| e.position < newest.position && e.episode == Some(episode));
        let same_firing = newest.episode.map_or(!self.settings.reopen_after_user, is_known);
        if same_firing
            || equally_new
            || repeated
            || dead_lettered
            || self.params.hold_down > 0
            || at <= ended_at + CLOCK_MARGIN
        {
            return Ok(());
        }
        self.coverage.opened_after_user += 1;
        let open = self.instance.tickets_of(key).any(|ticket| self.instance.phase(ticket).is_open());
        let at = newest.position;
        if open { Ok(()) } else { Err(format!("k{key}: the alert fires again since {at}, and has no open ticket")) }
    }

    /// A user ended the ticket of an alert that fires only once: nothing opens it again or creates another one.
    fn check_kept_after_user(&mut self, key: usize, events: &[Intent]) -> Result<(), String> {
        let openings: Vec<_> = events.iter().filter(|event| event.action.opens()).collect();
        let episode = openings.first().and_then(|event| event.episode);
        let one_firing = episode.is_some() && openings.iter().all(|event| event.episode == episode);
        let dead_lettered = events.iter().any(|event| self.not_applied.contains(&event.position));
        if self.user_ended_at[key].is_none()
            || !one_firing
            || events.iter().any(|event| event.action.closes())
            || self.user_raced[key]
            || dead_lettered
            || self.params.long_pause > 0
        {
            return Ok(());
        }
        self.coverage.kept_after_user += 1;
        let tickets: Vec<&Ticket> = self.instance.tickets_of(key).collect();
        let ended = tickets.len() == 1 && !self.instance.phase(tickets[0]).is_open();
        if ended { Ok(()) } else { Err(format!("k{key}: a user ended the ticket, and the alert opened it again")) }
    }

    fn events_of(&self, key: usize) -> Vec<Intent> {
        let mut events = Vec::new();
        // A resync contains no new event.
        let is_source_event = |record: &&MappedRecord| !matches!(record.origin, RecordOrigin::Resync(_));
        for record in self.input.iter().flatten().filter(is_source_event) {
            if let RecordContent::Intents(intents) = &record.content {
                events.extend(intents.iter().filter(|i| key_index(&i.key) == key).cloned());
            }
        }
        events
    }

    /// First position after the long pause, by partition.
    fn pause_at(&self) -> [Option<Position>; 2] {
        let mut first = [None, None];
        let half = self.scenario.records / 2;
        let before = self.published_before_pause;
        for partition in 0..2 {
            first[partition] =
                self.input[partition].get(before[partition]).map(|r| Position::new(partition as i32, r.offset, 0));
        }
        let _ = half;
        first
    }

    fn compare(&self, expected_tickets: &[Expected], tickets: &[&Ticket]) -> Result<(), String> {
        if expected_tickets.len() != tickets.len() {
            return Err(format!("{} tickets instead of {}", tickets.len(), expected_tickets.len()));
        }
        for (expected, actual) in expected_tickets.iter().zip(tickets) {
            let number = &actual.number;
            let phase = self.instance.phase(actual);
            if phase != expected.phase {
                return Err(format!("{number} is {phase:?} instead of {:?}", expected.phase));
            }
            for (at, name) in COLUMNS.iter().enumerate() {
                let has_business_rule = self.instance.business_rule.is_some_and(|(column, _)| column == *name);
                let present = actual.values.iter().find(|v| *v.column == **name).map(|v| v.text.clone());
                if present != expected.values[at] && !has_business_rule && !actual.user_edited {
                    return Err(format!("{number} has {name} {present:?} instead of {:?}", expected.values[at]));
                }
            }
            let notes = notes_of(actual);
            if notes != expected.notes {
                return Err(format!("{number} has the notes {notes:?} instead of {:?}", expected.notes));
            }
        }
        Ok(())
    }
}

/// The notes of a ticket, with their parts joined.
fn notes_of(ticket: &Ticket) -> Vec<(Position, String)> {
    let mut notes: Vec<(Position, String)> = Vec::new();
    for line in &ticket.journal {
        let Some((position, _)) = read_marker(&line.marker) else { continue };
        match notes.last_mut() {
            Some((last, whole)) if *last == position => whole.push_str(&line.text),
            _ => notes.push((position, line.text.clone())),
        }
    }
    // The note that the engine adds to a flapping alert is not in the events.
    for (_, text) in &mut notes {
        if let Some(at) = text.find("Flapping: ") {
            text.truncate(at);
            text.truncate(text.trim_end_matches('\n').len());
        }
    }
    notes.retain(|(_, text)| !text.is_empty());
    notes
}
