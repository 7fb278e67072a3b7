//! The reference: the expected tickets of a key, computed by applying its events one after the other. It shares no
//! code with the engine. If the result depends on timing and several results are correct (for example, a ticket may
//! or may not be forgotten during a long pause), it follows all of them as alternatives.

use super::publisher::COLUMNS;
use crate::model::{Action, EventOrder, Intent, Phase, Position};

/// An expected ticket.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expected {
    pub(super) phase: Phase,
    pub(super) values: [Option<String>; 3],
    pub(super) notes: Vec<(Position, String)>,
    /// The earliest and the latest time of a closing event since the ticket was last open.
    first_resolved: i64,
    last_resolved: i64,
}

/// One possible course of events.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Alternative {
    pub(super) tickets: Vec<Expected>,
    /// The ledger has forgotten the newest ticket.
    forgotten: bool,
    newest: EventOrder,
    ids: Vec<u64>,
    /// Ids of events that had no effect.
    ineffective_ids: Vec<u64>,
    /// An alert without a ticket that may end within its hold-down.
    short_alert: Option<ShortAlert>,
    /// An alert that was skipped, and whose later events a new owner reads again: it must have been short.
    reread: Option<ShortAlert>,
}

/// An alert that waits for its ticket.
#[derive(Debug, Clone, Default, PartialEq)]
struct ShortAlert {
    since: Option<i64>,
    longest: i64,
    newest: EventOrder,
    ids: Vec<u64>,
}

impl ShortAlert {
    fn add(&mut self, event: &Intent) {
        if event.event_id.is_some_and(|id| self.ids.contains(&id)) {
            return;
        }
        self.ids.extend(event.event_id);
        if !event.action.affects_state() || event.order.is_before(self.newest) {
            return;
        }
        self.newest = event.order;
        if matches!(event.action, Action::Open | Action::Reopen) {
            self.since.get_or_insert(event.occurred_at);
        } else if matches!(event.action, Action::Resolve | Action::Merge)
            && let Some(since) = self.since.take()
        {
            self.longest = self.longest.max(event.occurred_at - since);
        }
    }
}

/// Applies the events of one key.
pub(super) struct Reference {
    pub(super) alternatives: Vec<Alternative>,
    window: i64,
    hold_down: i64,
}

impl Reference {
    pub(super) fn new(window: u64, hold_down: u64) -> Self {
        Self { alternatives: vec![Alternative::default()], window: window as i64, hold_down: hold_down as i64 }
    }

    /// A pause so long that the entry of a resolved ticket may be forgotten.
    pub(super) fn pause(&mut self) {
        let mut more = Vec::new();
        for alternative in &self.alternatives {
            if alternative.tickets.last().is_some_and(|t| t.phase == Phase::Resolved) && !alternative.forgotten {
                more.push(Alternative {
                    forgotten: true,
                    newest: EventOrder::UNKNOWN,
                    ids: Vec::new(),
                    ineffective_ids: Vec::new(),
                    short_alert: None,
                    reread: None,
                    tickets: alternative.tickets.clone(),
                });
            }
        }
        self.alternatives.extend(more);
    }

    /// Drops the alternatives that the notes of the actual tickets rule out. If none remains, one is kept to show the
    /// differences.
    pub(super) fn drop_mismatches(&mut self, notes: &[Vec<(Position, String)>]) {
        let fits = |alternative: &Alternative| {
            let tickets = alternative.tickets.iter();
            alternative.tickets.len() <= notes.len()
                && tickets.zip(notes).all(|(expected, actual)| actual.starts_with(&expected.notes))
        };
        let fallback = self.alternatives.first().cloned();
        self.alternatives.retain(fits);
        if self.alternatives.is_empty() {
            self.alternatives.extend(fallback);
        }
    }

    pub(super) fn apply(&mut self, event: &Intent) {
        let window = self.window;
        let alternatives = std::mem::take(&mut self.alternatives);
        for alternative in alternatives {
            for next in alternative.successors(event, window, self.hold_down) {
                if !self.alternatives.contains(&next) {
                    self.alternatives.push(next);
                }
            }
        }
    }
}

impl Alternative {
    /// False while an alert waits that must get a ticket.
    pub(super) fn is_complete(&self) -> bool {
        [&self.short_alert, &self.reread].into_iter().flatten().all(|short_alert| short_alert.since.is_none())
    }

    /// The possible results of an event. An event that would create a ticket may instead wait, and have no effect.
    fn successors(mut self, event: &Intent, window: i64, hold_down: i64) -> Vec<Alternative> {
        let mut alternatives = Vec::new();
        if let Some(reread) = &mut self.reread {
            reread.add(event);
            if reread.longest >= hold_down {
                return Vec::new();
            }
            if reread.since.is_none() {
                alternatives.push(Alternative { reread: None, ..self.clone() });
            }
        }
        alternatives.push(self);
        let mut next = Vec::new();
        for mut alternative in alternatives {
            next.extend(match alternative.short_alert.take() {
                Some(mut short_alert) => alternative.continue_short_alert(&mut short_alert, event, window, hold_down),
                None => alternative.start_alert(event, window, hold_down),
            });
        }
        next
    }

    fn start_alert(self, event: &Intent, window: i64, hold_down: i64) -> Vec<Alternative> {
        let (before, had) = (self.clone(), self.tickets.len());
        let mut alternatives = self.apply(event, window);
        if hold_down > 0 && alternatives.iter().any(|alternative| alternative.tickets.len() > had) {
            let mut short_alert = ShortAlert::default();
            short_alert.add(event);
            alternatives.push(Alternative { short_alert: Some(short_alert), ..before });
        }
        alternatives
    }

    /// Handles an event of a waiting alert.
    fn continue_short_alert(
        self,
        short_alert: &mut ShortAlert,
        event: &Intent,
        window: i64,
        hold_down: i64,
    ) -> Vec<Alternative> {
        short_alert.add(event);
        if short_alert.longest >= hold_down {
            return Vec::new();
        }
        let mut alternatives = vec![Alternative { short_alert: Some(short_alert.clone()), ..self.clone() }];
        if short_alert.since.is_none() {
            let mut over = self.clone();
            over.ineffective_ids.extend(short_alert.ids.iter().copied());
            // Events that arrive before the alert is skipped count as older.
            alternatives.push(Alternative { newest: over.newest.newest(short_alert.newest), ..over.clone() });
            alternatives.push(over);
        }
        if self.reread.is_none() {
            let again = Alternative { reread: Some(short_alert.clone()), ..self };
            alternatives.extend(again.start_alert(event, window, hold_down));
        }
        alternatives
    }

    fn apply(mut self, event: &Intent, window: i64) -> Vec<Alternative> {
        let mut alternatives = Vec::new();
        if let Some(id) = event.event_id {
            if self.ids.contains(&id) {
                return vec![self];
            }
            if self.ineffective_ids.contains(&id) {
                alternatives.push(self.clone());
            }
        }
        let late = event.action.affects_state() && event.order.is_before(self.newest);
        let action = if late { Action::Note } else { event.action };
        let note_only = late || !event.action.affects_state();
        let exists = !self.tickets.is_empty() && !self.forgotten;
        let phase = if exists { self.tickets.last().map_or(Phase::None, |t| t.phase) } else { Phase::None };
        let opening = matches!(action, Action::Open | Action::Reopen);
        if late && event.note.is_none() || (phase == Phase::None && !opening) {
            if let Some(id) = event.event_id {
                self.ineffective_ids.push(id);
            }
            alternatives.push(self);
            return alternatives;
        }
        if phase == Phase::Resolved && opening {
            let (first, last) = self.tickets.last().map_or((0, 0), |t| (t.first_resolved, t.last_resolved));
            let (by_first, by_last) = (event.occurred_at - first > window, event.occurred_at - last > window);
            if by_first != by_last {
                alternatives.push(self.clone().apply_to_ticket(event, true, note_only));
            }
            alternatives.push(self.apply_to_ticket(event, by_last, note_only));
            return alternatives;
        }
        alternatives.push(self.apply_to_ticket(event, phase == Phase::None, note_only));
        alternatives
    }

    /// Applies an event to the newest ticket, or to a new one.
    fn apply_to_ticket(mut self, event: &Intent, new: bool, note_only: bool) -> Alternative {
        let action = if note_only { Action::Note } else { event.action };
        if new {
            self.forgotten = false;
            self.tickets.push(Expected {
                phase: Phase::None,
                values: Default::default(),
                notes: Vec::new(),
                first_resolved: 0,
                last_resolved: 0,
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
            let (first, last) = match before {
                Phase::Resolved => (ticket.first_resolved, ticket.last_resolved),
                _ => (event.occurred_at, event.occurred_at),
            };
            // The order of the log need not be that of the times.
            (ticket.first_resolved, ticket.last_resolved) = (first.min(event.occurred_at), last.max(event.occurred_at));
        }
        if !note_only {
            for (column, value) in &event.fields {
                if let Some(at) = COLUMNS.iter().position(|c| *c == &**column) {
                    ticket.values[at] = Some(value.clone());
                }
            }
            self.newest = self.newest.newest(event.order);
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
