//! The far side: tickets as the instance holds them, and what a committed write does to them. Every committed write is
//! judged on the spot against what the bridge promises; what is found wrong is handed back in words.

use std::collections::BTreeMap;

use super::super::event::MarkedNote;
use super::super::invariants;
use crate::model::{Column, Phase, Row, StateModel};

/// A value and who put it there.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) column: Column,
    pub(super) text: String,
    /// A person put it there, and since when.
    pub(super) person: Option<u64>,
}

/// A line of a ticket's work notes.
#[derive(Debug, Clone)]
pub(super) struct Line {
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
    pub(super) values: Vec<Value>,
    /// The bridge's notes, in the order in which they were committed.
    pub(super) journal: Vec<Line>,
    pub(super) mod_count: u64,
    pub(super) by_person: bool,
    pub(super) updated_on: i64,
    pub(super) created_on: i64,
    pub(super) deleted: bool,
    /// When each member last looked at the row, virtual time.
    pub(super) looked_at: [u64; 2],
    /// When a person last did something to it.
    pub(super) person_at: u64,
    /// The bridge wrote it last, and its ledger does not say so yet.
    pub(super) unseen: bool,
    /// A person wrote values into it.
    pub(super) touched: bool,
}

/// A write of the bridge as the instance got it.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// Which member sent it, and when it left it.
    pub(super) member: usize,
    pub(super) sent_at: u64,
    /// When it had last looked at the row by then.
    pub(super) looked_at: u64,
    pub(super) key: usize,
    /// `None` makes a ticket.
    pub(super) sys_id: Option<String>,
    pub(super) fields: Vec<(Column, String)>,
    pub(super) notes: Vec<MarkedNote>,
}

impl Content {
    /// For requests that write nothing.
    pub(super) fn nothing() -> Self {
        Self { member: 0, sent_at: 0, looked_at: 0, key: 0, sys_id: None, fields: Vec::new(), notes: Vec::new() }
    }
}

/// All tickets.
#[derive(Debug, Default)]
pub(super) struct Instance {
    pub(super) tickets: Vec<Ticket>,
    pub(super) states: StateModel,
    /// A business rule that keeps this column at one value.
    pub(super) rule: Option<(&'static str, &'static str)>,
}

/// What came of a write.
pub(super) struct Committed {
    pub(super) row: Row,
    pub(super) warnings: Vec<String>,
    /// Promises that this write broke.
    pub(super) wrong: Option<String>,
    /// It fell into the moment between the bridge's look and its write in which a person had changed the row.
    pub(super) raced: bool,
}

impl Instance {
    pub(super) fn clear(&mut self) {
        self.tickets.clear();
        self.rule = None;
    }

    pub(super) fn phase(&self, ticket: &Ticket) -> Phase {
        if ticket.deleted { Phase::None } else { self.states.phase(&ticket.state) }
    }

    pub(super) fn find(&self, sys_id: &str) -> Option<usize> {
        self.tickets.iter().position(|t| t.sys_id == sys_id && !t.deleted)
    }

    pub(super) fn of_key(&self, key: usize) -> impl Iterator<Item = &Ticket> {
        self.tickets.iter().filter(move |t| t.key == key)
    }

    pub(super) fn row(&self, ticket: &Ticket) -> Row {
        Row {
            sys_id: ticket.sys_id.clone(),
            number: ticket.number.clone(),
            state: ticket.state.clone(),
            mod_count: ticket.mod_count,
            updated_by: if ticket.by_person { "beth".into() } else { "nowbridge".into() },
            updated_on: ticket.updated_on,
            created_on: ticket.created_on,
            values: ticket.values.iter().map(|v| (v.column.to_string(), v.text.clone())).collect::<BTreeMap<_, _>>(),
        }
    }

    /// Commits a write; `None` where the row is gone. `date` is the instance's clock in seconds, `freshness` how long
    /// the bridge may trust what it saw of a row.
    pub(super) fn commit(&mut self, write: &Content, now: u64, date: i64, freshness: u64) -> Option<Committed> {
        let mut wrong = self.judge_notes(write);
        let mut raced = false;
        let at = match &write.sys_id {
            None => {
                let open = self.of_key(write.key).filter(|t| self.phase(t).is_open()).count();
                wrong = wrong.or_else(|| invariants::one_open_ticket(open + 1).err().map(|e| e.to_string()));
                self.insert(write.key, date);
                self.tickets.len() - 1
            }
            Some(sys_id) => {
                let at = self.find(sys_id)?;
                let ticket = &self.tickets[at];
                let unseen = ticket.person_at > write.looked_at;
                let trusted = freshness > 0 && ticket.person_at + freshness + 60_000 > write.sent_at;
                raced = ticket.person_at > 0 && (unseen || trusted);
                if !raced {
                    wrong = wrong.or_else(|| self.judge_update(write, at));
                }
                at
            }
        };
        let warnings = self.put(at, write, date);
        let ticket = &mut self.tickets[at];
        ticket.looked_at[write.member] = now;
        ticket.unseen = true;
        let row = self.row(&self.tickets[at]);
        Some(Committed { row, warnings, wrong, raced })
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
            by_person: false,
            updated_on: date,
            created_on: date,
            deleted: false,
            looked_at: [0; 2],
            person_at: 0,
            unseen: false,
            touched: false,
        });
    }

    /// Sets the values; gives the differences between what was sent and what stands.
    fn put(&mut self, at: usize, write: &Content, date: i64) -> Vec<String> {
        let mut warnings = Vec::new();
        let ticket = &mut self.tickets[at];
        for (column, text) in &write.fields {
            if **column == *self.states.column {
                ticket.state.clone_from(text);
                continue;
            }
            let mut text = text.clone();
            if let Some((ruled, stands)) = self.rule
                && &**column == ruled
                && text != stands
            {
                warnings.push(format!("{column} is {stands}"));
                stands.clone_into(&mut text);
            }
            match ticket.values.iter_mut().find(|v| v.column == *column) {
                Some(value) => (value.text, value.person) = (text, None),
                None => ticket.values.push(Value { column: column.clone(), text, person: None }),
            }
        }
        for note in &write.notes {
            ticket.journal.push(Line { marker: note.marker.clone(), text: note.text.clone() });
        }
        ticket.mod_count += 1;
        ticket.by_person = false;
        ticket.updated_on = date;
        warnings
    }

    fn judge_notes(&self, write: &Content) -> Option<String> {
        for note in &write.notes {
            let rows = || self.of_key(write.key).filter(|t| !t.deleted);
            if let Some(ticket) = rows().find(|t| t.journal.iter().any(|l| l.marker == note.marker)) {
                return Some(format!("note {} is doubled: it stands in {}", note.marker, ticket.number));
            }
        }
        None
    }

    fn judge_update(&self, write: &Content, at: usize) -> Option<String> {
        let ticket = &self.tickets[at];
        if self.phase(ticket) == Phase::Closed {
            return Some(format!("a write to {} which is closed", ticket.number));
        }
        let overwritten = write.fields.iter().find(|(column, text)| {
            ticket.values.iter().any(|v| v.column == *column && v.person.is_some() && v.text != *text)
        });
        overwritten.map(|(column, _)| format!("a person's value in {column} of {} is overwritten", ticket.number))
    }
}
