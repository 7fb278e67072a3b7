//! The canonical alert event: what every decoder produces and what people publish by hand. Its reference is
//! `schemas/alert-event.avsc`; unknown fields are refused nowhere and kept in `raw` by the decoders.

use std::collections::BTreeMap;

use super::Action;

/// A decoded alert or incident event in the canonical form (`alert-lifecycle/1`), short form already expanded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AlertEvent {
    /// The publisher's id of this event; empty where there is none.
    pub event_id: String,
    /// False where `event_id` was derived from content: it then tells nothing about repetition.
    pub event_id_native: bool,
    /// The system that raised it, such as `alertmanager`.
    pub system: String,
    /// Account, organisation or server of that system.
    pub instance: Option<String>,
    /// incident, alert, alert_group, finding or follow_up.
    pub kind: String,
    /// The vendor's id of the object.
    pub object_id: String,
    /// The vendor's human number of the object.
    pub number: Option<String>,
    /// Permalink of the object.
    pub url: Option<String>,
    /// The alert's key: `<system>[@instance]:<kind>:<object id>`, or what a person chose.
    pub key: String,
    /// The lifecycle step; `None` only while a decoder works.
    pub action: Option<Action>,
    /// open, acknowledged, suppressed, resolved, closed or unknown: the state after the event.
    pub status: String,
    /// Unix milliseconds at the source.
    pub occurred_at: i64,
    /// One line for people.
    pub title: Option<String>,
    /// Longer text.
    pub description: Option<String>,
    /// critical, high, medium, low, info or unknown.
    pub severity: Option<String>,
    /// Native priority name.
    pub priority: Option<String>,
    /// Name or e-mail of who did it.
    pub actor: Option<String>,
    /// Text of the note, where the event carries one.
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
