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
    /// An alert without a ticket that will be over before its hold-down.
    brief: Option<Brief>,
    /// One that came to nothing, of which a new owner reads the later events once more: it must have been brief.
    shadow: Option<Brief>,
}

/// An alert that waits for its ticket.
#[derive(Debug, Clone, Default, PartialEq)]
struct Brief {
    since: Option<i64>,
    longest: i64,
    newest: i64,
    ids: Vec<u64>,
}

impl Brief {
    fn hear(&mut self, event: &Intent) {
        if event.event_id.is_some_and(|id| self.ids.contains(&id)) {
            return;
        }
        self.ids.extend(event.event_id);
        if !event.action.affects_state() || event.occurred_at < self.newest {
            return;
        }
        self.newest = event.occurred_at;
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
    pub(super) ways: Vec<Way>,
    window: i64,
    hold_down: i64,
}

impl Reference {
    pub(super) fn new(window: u64, hold_down: u64) -> Self {
        Self { ways: vec![Way::default()], window: window as i64, hold_down: hold_down as i64 }
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
                    brief: None,
                    shadow: None,
                    tickets: way.tickets.clone(),
                });
            }
        }
        self.ways.extend(more);
    }

    /// Ways that can't end as things stand, by the notes of the tickets, need not be followed any further; one is kept to
    /// show what differs.
    pub(super) fn leave_out_what_differs(&mut self, notes: &[Vec<(Position, String)>]) {
        let fits = |way: &Way| {
            let tickets = way.tickets.iter();
            way.tickets.len() <= notes.len() && tickets.zip(notes).all(|(must, is)| is.starts_with(&must.notes))
        };
        let one = self.ways.first().cloned();
        self.ways.retain(fits);
        if self.ways.is_empty() {
            self.ways.extend(one);
        }
    }

    pub(super) fn apply(&mut self, event: &Intent) {
        let window = self.window;
        let ways = std::mem::take(&mut self.ways);
        for way in ways {
            for next in way.next(event, window, self.hold_down) {
                if !self.ways.contains(&next) {
                    self.ways.push(next);
                }
            }
        }
    }
}

impl Way {
    /// False where an alert waits that must have a ticket.
    pub(super) fn may_end(&self) -> bool {
        [&self.brief, &self.shadow].into_iter().flatten().all(|brief| brief.since.is_none())
    }

    /// What may come of an event. Where it would make a ticket, it may as well wait, and come to nothing.
    fn next(mut self, event: &Intent, window: i64, hold_down: i64) -> Vec<Way> {
        let mut ways = Vec::new();
        if let Some(shadow) = &mut self.shadow {
            shadow.hear(event);
            if shadow.longest >= hold_down {
                return Vec::new();
            }
            if shadow.since.is_none() {
                ways.push(Way { shadow: None, ..self.clone() });
            }
        }
        ways.push(self);
        let mut next = Vec::new();
        for mut way in ways {
            next.extend(match way.brief.take() {
                Some(mut brief) => way.wait(&mut brief, event, window, hold_down),
                None => way.begin(event, window, hold_down),
            });
        }
        next
    }

    fn begin(self, event: &Intent, window: i64, hold_down: i64) -> Vec<Way> {
        let (before, had) = (self.clone(), self.tickets.len());
        let mut ways = self.apply(event, window);
        if hold_down > 0 && ways.iter().any(|way| way.tickets.len() > had) {
            let mut brief = Brief { newest: i64::MIN, ..Brief::default() };
            brief.hear(event);
            ways.push(Way { brief: Some(brief), ..before });
        }
        ways
    }

    /// An event of an alert that waits.
    fn wait(self, brief: &mut Brief, event: &Intent, window: i64, hold_down: i64) -> Vec<Way> {
        brief.hear(event);
        if brief.longest >= hold_down {
            return Vec::new();
        }
        let mut ways = vec![Way { brief: Some(brief.clone()), ..self.clone() }];
        if brief.since.is_none() {
            let mut over = self.clone();
            over.idle_ids.extend(brief.ids.iter().copied());
            // What comes while it still waits to be left out counts as older.
            ways.push(Way { newest: over.newest.max(Some(brief.newest)), ..over.clone() });
            ways.push(over);
        }
        if self.shadow.is_none() {
            let again = Way { shadow: Some(brief.clone()), ..self };
            ways.extend(again.begin(event, window, hold_down));
        }
        ways
    }

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
        let late = event.action.affects_state() && self.newest.is_some_and(|n| event.occurred_at < n);
        let action = if late { Action::Note } else { event.action };
        let bare = late || !event.action.affects_state();
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
