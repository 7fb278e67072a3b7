//! The canonical alert event: what every decoder produces, and what users publish by hand. Its schema is
//! `schemas/alert-event.avsc`. Unknown fields are never rejected; the decoders keep them in `raw`.

use std::collections::BTreeMap;

use super::Action;

/// A decoded alert or incident event in the canonical form (`alert-lifecycle/1`); the short form is already expanded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AlertEvent {
    /// The publisher's id of the event; empty if it gives none.
    pub event_id: String,
    /// False if `event_id` was derived from content and so does not identify repetitions.
    pub event_id_native: bool,
    /// Identifies the firing of the alert that an opening event belongs to; `None` if the sender does not tell. Repeats
    /// of one firing have the same value.
    pub episode: Option<String>,
    /// The system that raised the alert, such as `alertmanager`.
    pub system: String,
    /// Account, organization or server of that system.
    pub instance: Option<String>,
    /// incident, alert, alert_group, finding or follow_up.
    pub kind: String,
    /// The vendor's id of the object.
    pub object_id: String,
    /// The vendor's number of the object, for users.
    pub number: Option<String>,
    /// Permalink of the object.
    pub url: Option<String>,
    /// The alert's key: `<system>[@instance]:<kind>:<object id>`, or the key that the publisher set.
    pub key: String,
    /// The lifecycle step; `None` only while a decoder builds the event.
    pub action: Option<Action>,
    /// The state after the event: open, acknowledged, suppressed, resolved, closed or unknown.
    pub status: String,
    /// When the event happened at the source, Unix milliseconds.
    pub occurred_at: i64,
    /// One line.
    pub title: Option<String>,
    /// Longer text.
    pub description: Option<String>,
    /// critical, high, medium, low, info or unknown.
    pub severity: Option<String>,
    /// The vendor's name of the priority.
    pub priority: Option<String>,
    /// Name or e-mail address of the user who acted.
    pub actor: Option<String>,
    /// Text of the note, if the event carries one.
    pub note: Option<String>,
    /// Reason, code and notes of a resolution.
    pub resolution: Option<Resolution>,
    /// Tags, labels and custom fields.
    pub labels: BTreeMap<String, String>,
    /// The whole canonical event as JSON, for mapping templates.
    pub json: serde_json::Value,
}

/// How an alert ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolution {
    /// merged, declined, false_positive…
    pub reason: Option<String>,
    /// A close code of the ticket system.
    pub code: Option<String>,
    /// Closing notes.
    pub notes: Option<String>,
}
