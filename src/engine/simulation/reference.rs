//! The reference: what the tickets of a key must look like in the end, by applying its events one after the other. It
//! shares no code with the engine. Where the order of things in time decides and both ways are right (a ticket may or
//! may not be forgotten during a long pause, say) it follows both.

use super::alerts::COLUMNS;
use crate::model::{Action, Intent, Phase, Position};

/// One ticket as it must be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expected {
    pub(super) phase: Phase,
    pub(super) values: [Option<String>; 3],
    pub(super) notes: Vec<(Position, String)>,
    /// When it was resolved: by its first and by its last closing event in a row.
    closed: (i64, i64),
}

/// One way in which things may have gone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Way {
    pub(super) tickets: Vec<Expected>,
    /// The ledger has forgotten the newest ticket.
    forgotten: bool,
    newest: Option<i64>,
    ids: Vec<u64>,
    /// Ids of events that came to nothing.
    idle_ids: Vec<u64>,
}

/// Applies the events of one key.
pub(super) struct Reference {
    pub(super) ways: Vec<Way>,
    window: i64,
}

impl Reference {
    pub(super) fn new(window: u64) -> Self {
        Self { ways: vec![Way::default()], window: i64::try_from(window).unwrap_or(i64::MAX) }
    }

    /// A pause so long that the entry of a finished ticket may be forgotten, or not.
    pub(super) fn pause(&mut self) {
        let mut more = Vec::new();
        for way in &self.ways {
            if way.tickets.last().is_some_and(|t| t.phase == Phase::Resolved) && !way.forgotten {
                more.push(Way {
                    forgotten: true,
                    newest: None,
                    ids: Vec::new(),
                    idle_ids: Vec::new(),
                    tickets: way.tickets.clone(),
                });
            }
        }
        self.ways.extend(more);
    }

    pub(super) fn apply(&mut self, event: &Intent) {
        let window = self.window;
        let ways = std::mem::take(&mut self.ways);
        for way in ways {
            for next in way.apply(event, window) {
                if !self.ways.contains(&next) {
                    self.ways.push(next);
                }
            }
        }
    }
}

impl Way {
    fn apply(mut self, event: &Intent, window: i64) -> Vec<Way> {
        let mut ways = Vec::new();
        if let Some(id) = event.event_id {
            if self.ids.contains(&id) {
                return vec![self];
            }
            if self.idle_ids.contains(&id) {
                ways.push(self.clone());
            }
        }
        let late = event.action.bears_state() && self.newest.is_some_and(|n| event.occurred_at < n);
        let action = if late { Action::Note } else { event.action };
        let bare = late || !event.action.bears_state();
        let exists = !self.tickets.is_empty() && !self.forgotten;
        let phase = if exists { self.tickets.last().map_or(Phase::None, |t| t.phase) } else { Phase::None };
        let opens = matches!(action, Action::Open | Action::Reopen);
        if late && event.note.is_none() || (phase == Phase::None && !opens) {
            if let Some(id) = event.event_id {
                self.idle_ids.push(id);
            }
            ways.push(self);
            return ways;
        }
        if phase == Phase::Resolved && opens {
            let (first, last) = self.tickets.last().map_or((0, 0), |t| t.closed);
            let (by_first, by_last) = (event.occurred_at - first > window, event.occurred_at - last > window);
            if by_first != by_last {
                ways.push(self.clone().take(event, true, bare));
            }
            ways.push(self.take(event, by_last, bare));
            return ways;
        }
        ways.push(self.take(event, phase == Phase::None, bare));
        ways
    }

    /// Applies an event to the newest ticket, or to a new one.
    fn take(mut self, event: &Intent, new: bool, bare: bool) -> Way {
        let action = if bare { Action::Note } else { event.action };
        if new {
            self.forgotten = false;
            self.tickets.push(Expected {
                phase: Phase::None,
                values: Default::default(),
                notes: Vec::new(),
                closed: (0, 0),
            });
        }
        let Some(ticket) = self.tickets.last_mut() else { return self };
        let before = ticket.phase;
        ticket.phase = match (action, before) {
            (Action::Open | Action::Reopen, Phase::None) | (Action::Unacknowledge, Phase::InProgress) => Phase::New,
            (Action::Open | Action::Reopen, Phase::Resolved) | (Action::Acknowledge, Phase::New) => Phase::InProgress,
            (Action::Resolve | Action::Merge, Phase::New | Phase::InProgress) => Phase::Resolved,
            (_, same) => same,
        };
        if matches!(action, Action::Resolve | Action::Merge) {
            let first = if before == Phase::Resolved { ticket.closed.0 } else { event.occurred_at };
            ticket.closed = (first, event.occurred_at);
        }
        if !bare {
            for (column, value) in &event.fields {
                if let Some(at) = COLUMNS.iter().position(|c| *c == &**column) {
                    ticket.values[at] = Some(value.clone());
                }
            }
            self.newest = self.newest.max(Some(event.occurred_at));
        }
        if let Some(note) = &event.note {
            ticket.notes.push((event.position, note.clone()));
        }
        if let Some(id) = event.event_id {
            self.ids.push(id);
        }
        self
    }
}
