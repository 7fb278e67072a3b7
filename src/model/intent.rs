//! The intent: the write that one alert event asks for, after the route's mapping and before the engine folds it.

use std::sync::Arc;

use super::{Action, EventOrder, Position};

/// The alert's key: one key, one ticket, one lane. Keys are compared byte for byte.
pub type Key = Arc<str>;

/// A column name of the route's table.
pub type Column = Arc<str>;

/// A mapped alert event: the values that it writes to the ticket, and its lifecycle step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Position of the alert event.
    pub position: Position,
    /// The alert's key.
    pub key: Key,
    /// The lifecycle step.
    pub action: Action,
    /// Columns and values, sorted by column, already truncated to the column's length. Never contains the state column
    /// or a journal column.
    pub fields: Vec<(Column, String)>,
    /// Columns written only if this event resolves the ticket (`close_code`, `close_notes`).
    pub closing: Vec<(Column, String)>,
    /// Text for the ticket's work notes, without a marker.
    pub note: Option<String>,
    /// Hash of the publisher's event id, if it gives one that is unique per event. `None` for an id derived from
    /// content: the second of two equal events would be lost.
    pub event_id: Option<u64>,
    /// Hash of the episode of an opening event: see [`super::AlertEvent::episode`].
    pub episode: Option<u64>,
    /// When the event happened at the source, Unix milliseconds.
    pub occurred_at: i64,
    /// What it is compared by with other events of its key.
    pub order: EventOrder,
    /// 0 is the most urgent.
    pub priority: u8,
    /// How long an alert that this event opens must stay open before a ticket is created or reopened, milliseconds.
    pub hold_down: u64,
}
