//! The requests that the engine asks for, and their form on the wire.

use crate::model::Column;

/// A work note with the marker that recognises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Text, marker not included.
    pub text: String,
    /// The marker, unique per note and part, such as `[alerts/3/12345.0]`.
    pub marker: String,
}

/// One thing to do on the route's table. Writes are one HTTP request; a read with markers and a look-up may page.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Make a ticket. Answered by `Applied`, or why not.
    Create {
        /// Goes into the correlation column; compared in the answer.
        correlation: String,
        /// Names the bridge; left out where empty.
        correlation_display: String,
        /// Columns and raw values, the state column perhaps among them.
        fields: Vec<(Column, String)>,
        /// Work notes in order, written as one journal entry.
        notes: Vec<Note>,
    },
    /// Write to a ticket. Answered by `Applied`, or why not.
    Update {
        /// The ticket.
        sys_id: String,
        /// Columns and raw values.
        fields: Vec<(Column, String)>,
        /// Work notes in order, written as one journal entry.
        notes: Vec<Note>,
    },
    /// Read a ticket. Answered by `Rows` with one row, or `Failed(Gone)`.
    Read {
        /// The ticket.
        sys_id: String,
        /// Columns wanted beside the standard ones.
        columns: Vec<Column>,
        /// Markers to look for in its journal; empty: the journal is not read.
        markers: Vec<String>,
    },
    /// Find the tickets that carry this correlation. Answered by `Rows`, oldest first.
    Find {
        /// The correlation, compared byte for byte.
        correlation: String,
        /// Columns wanted beside the standard ones.
        columns: Vec<Column>,
    },
}

impl Request {
    /// True where it changes something on the instance.
    pub fn writes(&self) -> bool {
        matches!(self, Request::Create { .. } | Request::Update { .. })
    }
}
