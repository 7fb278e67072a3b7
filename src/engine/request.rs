//! The requests of the engine, in its own words; whoever drives it turns them into the instance's.

use crate::model::{Column, HttpMethod, Key, entry::AttemptId};

/// A request, in the words of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestBody {
    /// Make a ticket.
    Create {
        /// The key; its correlation goes into the row.
        key: Key,
        /// Columns and values, sorted by column.
        fields: Vec<(Column, String)>,
        /// Work notes in order, each with its marker; written as one journal entry.
        notes: Vec<MarkedNote>,
        /// For logs.
        attempt: AttemptId,
    },
    /// Write to a ticket.
    Update {
        /// The key.
        key: Key,
        /// The ticket.
        sys_id: String,
        /// Columns and values, sorted by column; the state column among them.
        fields: Vec<(Column, String)>,
        /// Work notes in order.
        notes: Vec<MarkedNote>,
        /// For logs.
        attempt: AttemptId,
    },
    /// Read the ticket. Answered by `Rows` with at most one row, or `Failed(Gone)`.
    Read {
        /// The key.
        key: Key,
        /// The ticket.
        sys_id: String,
        /// Columns wanted beside the standard ones.
        columns: Vec<Column>,
        /// Note markers to look for in its journal; empty: the journal is not read.
        markers: Vec<String>,
    },
    /// Find the tickets of a key, each checked to really carry its correlation, oldest first.
    Find {
        /// The key.
        key: Key,
        /// Columns wanted beside the standard ones.
        columns: Vec<Column>,
    },
}

impl RequestBody {
    /// The method that it is made with.
    pub fn method(&self) -> HttpMethod {
        match self {
            Self::Create { .. } => HttpMethod::Post,
            Self::Update { .. } => HttpMethod::Patch,
            Self::Read { .. } | Self::Find { .. } => HttpMethod::Get,
        }
    }
}

/// A note with the marker that recognises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedNote {
    /// Text, marker not included.
    pub text: String,
    /// The marker, unique per note and part.
    pub marker: String,
}
