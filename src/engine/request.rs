//! The engine's requests to the instance. The driver translates them into those of the API in use.

use crate::model::{Column, HttpMethod, Key, entry::AttemptId};

/// Maximum number of tickets in [`InstanceRequest::ReadMany`]: the length of a URL is limited.
pub const MAX_READ_MANY: usize = 100;

/// A request to the instance, independent of its API.
#[derive(Debug, Clone, PartialEq)]
pub enum InstanceRequest {
    /// Create a ticket.
    Create {
        /// The key whose correlation is written to the row.
        key: Key,
        /// Columns and values, sorted by column.
        fields: Vec<(Column, String)>,
        /// Work notes in order, each with its marker; written as one journal entry.
        notes: Vec<MarkedNote>,
        /// For logs.
        attempt: AttemptId,
    },
    /// Update a ticket.
    Update {
        key: Key,
        sys_id: String,
        /// `sys_mod_count` of the row on which the write was decided; `None` if no row was read for it.
        decided_on: Option<u64>,
        /// Columns and values, sorted by column, including the state column.
        fields: Vec<(Column, String)>,
        /// Work notes in order.
        notes: Vec<MarkedNote>,
        /// For logs.
        attempt: AttemptId,
    },
    /// Read a ticket. The answer is `Rows` with at most one row, or `Failed(Gone)`.
    Read {
        key: Key,
        sys_id: String,
        /// Columns to read in addition to the standard ones.
        columns: Vec<Column>,
        /// Note markers to search for in the journal. If empty, the journal is not read.
        markers: Vec<String>,
    },
    /// Read several tickets at once. The answer is `Rows`, in any order, without those that do not exist.
    ReadMany {
        /// Keys and sys_ids, at most [`MAX_READ_MANY`].
        tickets: Vec<(Key, String)>,
        /// Columns to read in addition to the standard ones.
        columns: Vec<Column>,
    },
    /// Find the tickets of a key, oldest first. Each is checked to carry the key's correlation.
    Find {
        key: Key,
        /// Columns to read in addition to the standard ones.
        columns: Vec<Column>,
    },
}

impl InstanceRequest {
    /// The HTTP method of the request.
    pub fn method(&self) -> HttpMethod {
        match self {
            Self::Create { .. } => HttpMethod::Post,
            Self::Update { .. } => HttpMethod::Patch,
            Self::Read { .. } | Self::ReadMany { .. } | Self::Find { .. } => HttpMethod::Get,
        }
    }
}

/// A note with the marker by which it is recognized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedNote {
    /// Without the marker.
    pub text: String,
    /// Unique per note and part.
    pub marker: String,
}
