//! The instance: its tickets, and what a committed write does to them. Every committed write is checked at once
//! against the guarantees of the bridge; a violation is returned as text.

use std::collections::BTreeMap;

use super::super::event::MarkedNote;
use super::super::invariants;
use crate::model::{Column, Phase, Row, StateModel};

/// A value and its author.
#[derive(Debug, Clone)]
pub(super) struct ColumnValue {
    pub(super) column: Column,
    pub(super) text: String,
    /// When a user set it; `None` if the bridge did.
    pub(super) set_by_user_at: Option<u64>,
}

/// A line of a ticket's work notes.
#[derive(Debug, Clone)]
pub(super) struct JournalLine {
    pub(super) marker: String,
    pub(super) text: String,
}

/// A row.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) key: usize,
    pub(super) sys_id: String,
    pub(super) number: String,
    pub(super) state: String,
    pub(super) values: Vec<ColumnValue>,
    /// The bridge's notes, in the order of their commits.
    pub(super) journal: Vec<JournalLine>,
    pub(super) mod_count: u64,
    pub(super) updated_by_user: bool,
    pub(super) updated_on: i64,
    pub(super) created_on: i64,
    pub(super) deleted: bool,
    /// When it was resolved, closed or canceled, on the instance's clock in seconds; `None` while it is open.
    pub(super) ended_on: Option<i64>,
    /// Versions that users made, and when, in virtual time.
    pub(super) user_versions: Vec<(u64, u64)>,
    /// The bridge wrote it last, and the entry of this write is not in the ledger yet.
    pub(super) write_not_in_ledger: bool,
    /// A user set values in it.
    pub(super) user_edited: bool,
    /// When a user opened it again, in virtual time.
    pub(super) reopened_by_user_at: Option<u64>,
    /// The bridge has forgotten it, so that nothing it does later takes it into account.
    pub(super) forgotten: bool,
}

/// A write of the bridge as the instance received it.
#[derive(Debug, Clone)]
pub(super) struct BridgeWrite {
    pub(super) checked_at: u64,
    /// The version of the row on which it was decided.
    pub(super) decided_on: Option<u64>,
    pub(super) key: usize,
    /// `None` creates a ticket.
    pub(super) sys_id: Option<String>,
    pub(super) fields: Vec<(Column, String)>,
    pub(super) notes: Vec<MarkedNote>,
}

impl BridgeWrite {
    /// For requests that write nothing.
    pub(super) fn empty() -> Self {
        Self { checked_at: 0, decided_on: None, key: 0, sys_id: None, fields: Vec::new(), notes: Vec::new() }
    }
}

/// The tickets of the instance.
#[derive(Debug, Default)]
pub(super) struct Instance {
    pub(super) tickets: Vec<Ticket>,
    pub(super) states: StateModel,
    /// Rows show when they were resolved or closed.
    pub(super) shows_end_times: bool,
    /// A business rule that forces this column to this value.
    pub(super) business_rule: Option<(&'static str, &'static str)>,
}

/// The result of a write.
pub(super) struct Committed {
    pub(super) row: Row,
    pub(super) warnings: Vec<String>,
    /// The guarantee that this write broke.
    pub(super) violation: Option<String>,
    /// A user changed the row between the bridge's read and its write.
    pub(super) user_raced: bool,
}

impl Instance {
    pub(super) fn clear(&mut self) {
        self.tickets.clear();
        self.business_rule = None;
    }

    pub(super) fn phase(&self, ticket: &Ticket) -> Phase {
        if ticket.deleted { Phase::None } else { self.states.phase(&ticket.state) }
    }

    pub(super) fn find(&self, sys_id: &str) -> Option<usize> {
        self.tickets.iter().position(|t| t.sys_id == sys_id && !t.deleted)
    }

    pub(super) fn tickets_of(&self, key: usize) -> impl Iterator<Item = &Ticket> {
        self.tickets.iter().filter(move |t| t.key == key)
    }

    pub(super) fn row(&self, ticket: &Ticket) -> Row {
        Row {
            sys_id: ticket.sys_id.clone(),
            number: ticket.number.clone(),
            state: ticket.state.clone(),
            mod_count: ticket.mod_count,
            updated_by: if ticket.updated_by_user { "beth".into() } else { "nowbridge".into() },
            updated_on: ticket.updated_on,
            created_on: ticket.created_on,
            inactive: false,
            resolved_at: ticket.ended_on.filter(|_| self.shows_end_times),
            closed_at: ticket.ended_on.filter(|_| self.shows_end_times),
            values: ticket.values.iter().map(|v| (v.column.to_string(), v.text.clone())).collect::<BTreeMap<_, _>>(),
        }
    }

    /// Commits a write; `None` if the row does not exist. `date` is the instance's clock in seconds; `max_age`, in
    /// milliseconds, how long before it was sent the row on which a write was decided may have been replaced.
    pub(super) fn commit(&mut self, write: &BridgeWrite, date: i64, max_age: u64) -> Option<Committed> {
        let mut violation = self.check_notes(write);
        let mut user_raced = false;
        let at = match &write.sys_id {
            None => {
                let open = self.tickets_of(write.key).filter(|t| !t.forgotten && self.phase(t).is_open()).count();
                violation = violation.or_else(|| invariants::one_open_ticket(open + 1).err().map(|e| e.to_string()));
                self.insert(write.key, date);
                self.tickets.len() - 1
            }
            Some(sys_id) => {
                let at = self.find(sys_id)?;
                let ticket = &self.tickets[at];
                let seen = write.decided_on.unwrap_or(0);
                let unseen = ticket.user_versions.iter().find(|(version, _)| *version > seen);
                user_raced = unseen.is_some();
                match unseen {
                    Some((_, since)) if write.checked_at > since + max_age => {
                        let age = write.checked_at - since;
                        let text = format!("a write to {} ignores what a user did {age} ms before", ticket.number);
                        violation = violation.or(Some(text));
                    }
                    Some(_) => {}
                    None => violation = violation.or_else(|| self.check_update(write, at)),
                }
                at
            }
        };
        let warnings = self.apply_write(at, write, date);
        self.tickets[at].write_not_in_ledger = true;
        let row = self.row(&self.tickets[at]);
        Some(Committed { row, warnings, violation, user_raced })
    }

    /// The bridge forgets a key. Returns a violation if a user opened its ticket again more than `max_age` before.
    pub(super) fn forget(&mut self, key: usize, now: u64, max_age: u64) -> Option<String> {
        let states = &self.states;
        let mut violation = None;
        for ticket in self.tickets.iter_mut().filter(|ticket| ticket.key == key) {
            let open = !ticket.deleted && states.phase(&ticket.state).is_open();
            if let Some(at) = ticket.reopened_by_user_at.filter(|at| open && !ticket.forgotten && now > at + max_age) {
                let text = format!("{} is forgotten, which a user opened again {} ms before", ticket.number, now - at);
                violation = Some(text);
            }
            ticket.forgotten = true;
        }
        violation
    }

    fn insert(&mut self, key: usize, date: i64) {
        let n = self.tickets.len() + 1;
        self.tickets.push(Ticket {
            key,
            sys_id: format!("{n:032x}"),
            number: format!("INC{n:07}"),
            state: self.states.new.clone(),
            values: Vec::with_capacity(4),
            journal: Vec::new(),
            mod_count: 0,
            updated_by_user: false,
            updated_on: date,
            created_on: date,
            deleted: false,
            ended_on: None,
            user_versions: Vec::new(),
            write_not_in_ledger: false,
            user_edited: false,
            reopened_by_user_at: None,
            forgotten: false,
        });
    }

    /// Sets the values; returns the differences between the values sent and the values in the row.
    fn apply_write(&mut self, at: usize, write: &BridgeWrite, date: i64) -> Vec<String> {
        let mut warnings = Vec::new();
        let ticket = &mut self.tickets[at];
        for (column, text) in &write.fields {
            if **column == *self.states.column {
                let was_open = self.states.phase(&ticket.state).is_open();
                ticket.state.clone_from(text);
                let is_open = self.states.phase(text).is_open();
                ticket.ended_on = if is_open { None } else { ticket.ended_on.filter(|_| !was_open).or(Some(date)) };
                continue;
            }
            let mut text = text.clone();
            if let Some((rule_column, fixed_value)) = self.business_rule
                && &**column == rule_column
                && text != fixed_value
            {
                warnings.push(format!("{column} is {fixed_value}"));
                fixed_value.clone_into(&mut text);
            }
            match ticket.values.iter_mut().find(|v| v.column == *column) {
                Some(value) => (value.text, value.set_by_user_at) = (text, None),
                None => ticket.values.push(ColumnValue { column: column.clone(), text, set_by_user_at: None }),
            }
        }
        for note in &write.notes {
            ticket.journal.push(JournalLine { marker: note.marker.clone(), text: note.text.clone() });
        }
        ticket.mod_count += 1;
        ticket.updated_by_user = false;
        ticket.updated_on = date;
        warnings
    }

    fn check_notes(&self, write: &BridgeWrite) -> Option<String> {
        for note in &write.notes {
            let rows = || self.tickets_of(write.key).filter(|t| !t.deleted);
            if let Some(ticket) = rows().find(|t| t.journal.iter().any(|l| l.marker == note.marker)) {
                return Some(format!("note {} was written twice: it is already in {}", note.marker, ticket.number));
            }
        }
        None
    }

    fn check_update(&self, write: &BridgeWrite, at: usize) -> Option<String> {
        let ticket = &self.tickets[at];
        if self.phase(ticket) == Phase::Closed {
            return Some(format!("a write to {}, which is closed", ticket.number));
        }
        let overwritten = write.fields.iter().find(|(column, text)| {
            ticket.values.iter().any(|v| v.column == *column && v.set_by_user_at.is_some() && v.text != *text)
        });
        overwritten.map(|(column, _)| format!("a user's value in {column} of {} is overwritten", ticket.number))
    }
}
