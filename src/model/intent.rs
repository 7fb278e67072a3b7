//! What one alert event wants written, after the route's mapping and before the engine folds it with others.

use std::sync::Arc;

use super::{Action, Position};

/// The alert's key: one key, one ticket, one lane. Compared byte for byte.
pub type Key = Arc<str>;

/// A column name of the route's table.
pub type Column = Arc<str>;

/// One alert event, mapped: the values it wants in the ticket, and what it does to the ticket's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Where it came from.
    pub position: Position,
    /// The alert's key.
    pub key: Key,
    /// The lifecycle step.
    pub action: Action,
    /// Columns and values, sorted by column, already cut to the column's length. Never the state column, and never a
    /// journal column.
    pub fields: Vec<(Column, String)>,
    /// Columns written only when this event ends up resolving the ticket (`close_code`, `close_notes`).
    pub closing: Vec<(Column, String)>,
    /// Text for the ticket's work notes, without a marker.
    pub note: Option<String>,
    /// Digest of the publisher's own event id, where it gives one that is unique per event. Ids that we derived from
    /// content are `None`: they would swallow the second of two equal events.
    pub event_id: Option<u64>,
    /// When it happened at the source, Unix milliseconds.
    pub occurred_at: i64,
    /// 0 is the most urgent; drawn first.
    pub priority: u8,
    /// An alert that this opens must stay open so long before a ticket is made or reopened, milliseconds.
    pub hold_down: u64,
}
