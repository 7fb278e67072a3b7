//! Names of actions, statuses and severities in alert events, and how they map to each other.

use crate::model::Action;

/// Names of the actions, as published.
pub(super) const ACTIONS: [(&str, Action); 13] = [
    ("open", Action::Open),
    ("update", Action::Update),
    ("acknowledge", Action::Acknowledge),
    ("unacknowledge", Action::Unacknowledge),
    ("assign", Action::Assign),
    ("note", Action::Note),
    ("suppress", Action::Suppress),
    ("unsuppress", Action::Unsuppress),
    ("resolve", Action::Resolve),
    ("reopen", Action::Reopen),
    ("merge", Action::Merge),
    ("split", Action::Split),
    ("follow_up", Action::FollowUp),
];

/// Returns the action with this name, ignoring case. `followup` and `follow-up` are accepted too.
pub(super) fn action(name: &str) -> Option<Action> {
    let name = name.trim().to_ascii_lowercase().replace('-', "_");
    let name = if name == "followup" { "follow_up" } else { name.as_str() };
    ACTIONS.iter().find(|(known, _)| *known == name).map(|(_, action)| *action)
}

/// Returns the name of an action.
pub(super) fn action_name(action: Action) -> &'static str {
    ACTIONS.iter().find(|(_, known)| *known == action).map_or("update", |(name, _)| name)
}

/// Names of the statuses.
pub(super) const STATUSES: [&str; 6] = ["open", "acknowledged", "suppressed", "resolved", "closed", "unknown"];

/// Returns the action of an event that contains only a status.
pub(super) fn action_from_status(status: &str) -> Option<Action> {
    match status {
        "open" => Some(Action::Open),
        "acknowledged" => Some(Action::Acknowledge),
        "suppressed" => Some(Action::Suppress),
        "resolved" | "closed" => Some(Action::Resolve),
        _ => None,
    }
}

/// Returns the status of an event that contains only an action.
pub(super) fn status_after(action: Action) -> &'static str {
    match action {
        Action::Open | Action::Reopen | Action::Unacknowledge | Action::Unsuppress => "open",
        Action::Acknowledge => "acknowledged",
        Action::Suppress => "suppressed",
        Action::Resolve | Action::Merge => "resolved",
        Action::Update | Action::Assign | Action::Note | Action::Split | Action::FollowUp => "unknown",
    }
}

/// Returns the canonical severity of a name that monitoring systems use. An unknown name must not prevent a ticket, so
/// it becomes `unknown`.
pub(super) fn severity(name: &str) -> &'static str {
    match name.trim().to_ascii_lowercase().as_str() {
        "critical" | "crit" | "page" | "emergency" | "fatal" | "disaster" | "p1" | "sev1" => "critical",
        "high" | "error" | "major" | "p2" | "sev2" => "high",
        "medium" | "warning" | "warn" | "moderate" | "p3" | "sev3" => "medium",
        "low" | "minor" | "p4" | "sev4" => "low",
        "info" | "informational" | "none" | "negligible" | "p5" | "sev5" => "info",
        _ => "unknown",
    }
}
