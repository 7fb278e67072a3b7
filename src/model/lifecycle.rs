//! The life of an alert and of a ticket: the actions an alert event can ask for, the phases a ticket can be in,
//! and the table that says what an action does in a phase. The table is pure data, so that folding several actions
//! gives the same ticket as applying them one by one.

use serde::{Deserialize, Serialize};

/// What an alert event asks for. The names are those of the canonical event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The alert fires: make a ticket if none is open, else update it.
    Open,
    /// Fields changed; never makes a ticket.
    Update,
    /// Somebody works on it: a new ticket moves to in progress.
    Acknowledge,
    /// Nobody works on it any more: an in-progress ticket moves back to new.
    Unacknowledge,
    /// Assignment fields changed; the state stays.
    Assign,
    /// Only a work note.
    Note,
    /// Silenced or snoozed; by default nothing is written.
    Suppress,
    /// The end of a suppression.
    Unsuppress,
    /// The alert is over.
    Resolve,
    /// The alert is back: reopen within the window, else a new ticket.
    Reopen,
    /// Merged into another alert: a note, and the ticket is resolved.
    Merge,
    /// Split off: a note.
    Split,
    /// A follow-up task: a note.
    FollowUp,
}

impl Action {
    /// True where the action may make a ticket when the key has none that is open.
    pub fn opens(self) -> bool {
        matches!(self, Action::Open | Action::Reopen)
    }

    /// True where the action ends the alert.
    pub fn closes(self) -> bool {
        matches!(self, Action::Resolve | Action::Merge)
    }

    /// True where the action says something about the state of the alert, so that an event older than what has been
    /// applied must not be applied any more. Notes are always worth keeping.
    pub fn affects_state(self) -> bool {
        !matches!(self, Action::Note | Action::Split | Action::FollowUp)
    }
}

/// What phase a ticket is in, independent of the state values of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
    /// There is no ticket.
    None = 0,
    /// Nobody has started on it.
    New = 1,
    /// Somebody works on it, or it was reopened.
    InProgress = 2,
    /// Waiting for somebody else.
    OnHold = 3,
    /// Resolved; may be reopened.
    Resolved = 4,
    /// Closed or cancelled; never written again.
    Closed = 5,
}

impl Phase {
    /// All phases, in the order of their numbers.
    pub const ALL: [Phase; 6] =
        [Phase::None, Phase::New, Phase::InProgress, Phase::OnHold, Phase::Resolved, Phase::Closed];

    /// True where the ticket exists and is neither resolved nor closed.
    pub fn is_open(self) -> bool {
        matches!(self, Phase::New | Phase::InProgress | Phase::OnHold)
    }

    /// The phase after `action`, given that reopening is allowed. `Closed` stays closed: an opening action there
    /// needs a new ticket, which the fold decides, not this table.
    pub fn after(self, action: Action) -> Phase {
        match (action, self) {
            (Action::Open | Action::Reopen, Phase::None) => Phase::New,
            (Action::Open | Action::Reopen, Phase::Resolved) => Phase::InProgress,
            (Action::Acknowledge, Phase::New) => Phase::InProgress,
            (Action::Unacknowledge, Phase::InProgress) => Phase::New,
            (a, p) if a.closes() && p.is_open() => Phase::Resolved,
            (_, p) => p,
        }
    }
}

/// How the phases are written in the `state` column of the route's table.
///
/// The defaults are those of `incident`: 1 New, 2 In Progress, 3 On Hold, 6 Resolved, 7 Closed, 8 Canceled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateModel {
    /// The column, `state` on task tables.
    pub column: String,
    /// Raw value of a new ticket.
    pub new: String,
    /// Raw value of a ticket in progress.
    pub in_progress: String,
    /// Raw values that mean on hold; the first is never written by us.
    pub on_hold: Vec<String>,
    /// Raw value of a resolved ticket.
    pub resolved: String,
    /// Raw values of tickets that are never written again.
    pub closed: Vec<String>,
}

impl Default for StateModel {
    fn default() -> Self {
        Self {
            column: "state".into(),
            new: "1".into(),
            in_progress: "2".into(),
            on_hold: vec!["3".into()],
            resolved: "6".into(),
            closed: vec!["7".into(), "8".into()],
        }
    }
}

impl StateModel {
    /// The phase that a raw state value means. An unknown value is a customer's own open state: in progress.
    pub fn phase(&self, raw: &str) -> Phase {
        if raw == self.new {
            Phase::New
        } else if raw == self.resolved {
            Phase::Resolved
        } else if self.closed.iter().any(|c| c == raw) {
            Phase::Closed
        } else if self.on_hold.iter().any(|h| h == raw) {
            Phase::OnHold
        } else {
            Phase::InProgress
        }
    }

    /// The raw value to write for a phase; `None` for phases the bridge never writes.
    pub fn raw(&self, phase: Phase) -> Option<&str> {
        match phase {
            Phase::New => Some(&self.new),
            Phase::InProgress => Some(&self.in_progress),
            Phase::Resolved => Some(&self.resolved),
            Phase::None | Phase::OnHold | Phase::Closed => None,
        }
    }
}
