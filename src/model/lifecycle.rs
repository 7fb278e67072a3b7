//! The lifecycle of alerts and tickets: the actions of alert events, the phases of a ticket, and the transition table.
//! Folding several actions gives the same phase as applying them one by one.

use serde::{Deserialize, Serialize};

/// The lifecycle step of an alert event. The names are those of the canonical event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The alert fires: creates a ticket if none is open, otherwise updates it.
    Open,
    /// Fields changed; never creates a ticket.
    Update,
    /// Somebody works on the alert: a new ticket moves to in progress.
    Acknowledge,
    /// Work on the alert has stopped: a ticket in progress moves back to new.
    Unacknowledge,
    /// Assignment fields changed; the state stays.
    Assign,
    /// Only a work note.
    Note,
    /// The alert was silenced or snoozed; by default nothing is written.
    Suppress,
    /// The end of a suppression.
    Unsuppress,
    /// The alert is over.
    Resolve,
    /// The alert is back: reopens the ticket within the reopen window, otherwise creates a new one.
    Reopen,
    /// The alert was merged into another one: writes a note and resolves the ticket.
    Merge,
    /// The alert was split: writes a note.
    Split,
    /// A follow-up task: writes a note.
    FollowUp,
}

impl Action {
    /// Whether the action may create a ticket if the key has no open one.
    pub fn opens(self) -> bool {
        matches!(self, Action::Open | Action::Reopen)
    }

    /// Whether the action ends the alert.
    pub fn closes(self) -> bool {
        matches!(self, Action::Resolve | Action::Merge)
    }

    /// Whether the action says something about the state of the alert. Such an event is skipped if it is older than the
    /// newest one applied; notes are always applied.
    pub fn affects_state(self) -> bool {
        !matches!(self, Action::Note | Action::Split | Action::FollowUp)
    }
}

/// The phase of a ticket, independent of the state values of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
    /// There is no ticket.
    None = 0,
    /// Work has not started.
    New = 1,
    /// Somebody works on it, or it was reopened.
    InProgress = 2,
    /// Work waits for somebody else.
    OnHold = 3,
    /// Resolved; may be reopened.
    Resolved = 4,
    /// Closed or canceled; never written again.
    Closed = 5,
}

impl Phase {
    /// All phases, in the order of their numbers.
    pub const ALL: [Phase; 6] =
        [Phase::None, Phase::New, Phase::InProgress, Phase::OnHold, Phase::Resolved, Phase::Closed];

    /// Whether the ticket exists and is neither resolved nor closed.
    pub fn is_open(self) -> bool {
        matches!(self, Phase::New | Phase::InProgress | Phase::OnHold)
    }

    /// Returns the phase after `action`, provided that reopening is allowed. `Closed` stays closed: an opening action
    /// then needs a new ticket, which the fold decides.
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

/// The values of the phases in the state column of the route's table.
///
/// The defaults are those of `incident`: 1 New, 2 In Progress, 3 On Hold, 6 Resolved, 7 Closed, 8 Canceled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateModel {
    /// The column; `state` on task tables.
    pub column: String,
    /// Raw value of a new ticket.
    pub new: String,
    /// Raw value of a ticket in progress.
    pub in_progress: String,
    /// Raw values that mean on hold. The bridge never writes them.
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
    /// Returns the phase of a raw state value. An unknown value is a custom open state: in progress.
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

    /// Returns the phase of a row. An inactive row is closed, whatever states a customer has added; except a resolved
    /// one of a table that has no state after that.
    pub fn phase_of(&self, raw: &str, inactive: bool) -> Phase {
        match self.phase(raw) {
            Phase::Resolved if self.closed.is_empty() => Phase::Resolved,
            _ if inactive => Phase::Closed,
            phase => phase,
        }
    }

    /// Returns the raw value to write for a phase; `None` for phases that the bridge never writes.
    pub fn raw(&self, phase: Phase) -> Option<&str> {
        match phase {
            Phase::New => Some(&self.new),
            Phase::InProgress => Some(&self.in_progress),
            Phase::Resolved => Some(&self.resolved),
            Phase::None | Phase::OnHold | Phase::Closed => None,
        }
    }
}
