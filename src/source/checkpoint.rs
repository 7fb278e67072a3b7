//! The stored progress of a route: the value of its record in the checkpoints topic, and the records of its rows
//! topic. Both are versioned JSON, decoded into types.
//!
//! Rows topic: key `<sys_id>` with a [`RowState`]; keys `journal:<time>:<sys_id>` and `delete:<time>:<sys_id>` for
//! published entries that the lookback may return again. Tombstones remove them.

use serde::{Deserialize, Serialize};

use super::rows::{InsertOnlyTable, InsertedRow, RowState, StateRecord};
use super::window::TableProgress;

/// Version of the checkpoint format that this release writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The progress of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Format of the record, [`FORMAT_VERSION`].
    pub v: u32,
    pub route: String,
    /// Name of the instance that the cursors belong to.
    pub instance: String,
    /// The table that the cursors belong to.
    pub table: String,
    /// Sequence number: increases with every checkpoint, so that the newest one is known if two partitions contain
    /// one.
    pub seq: u64,
    /// The instance's clock when the route first started, in Unix seconds.
    pub first_started: i64,
    /// Nothing older than this is read, in Unix seconds.
    pub start_from: i64,
    /// The polled table.
    pub rows: TableProgress,
    /// `sys_journal_field`.
    pub journal: TableProgress,
    /// `sys_audit_delete`.
    pub deletes: TableProgress,
}

/// A stored record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredStateError {
    /// The checkpoint's format is not known to this release.
    #[error(
        "the checkpoint of route {route} has format version {found}, but this release reads version {FORMAT_VERSION}: run a newer release"
    )]
    UnsupportedFormat {
        route: String,
        /// The record's format version.
        found: u32,
    },
    /// The value is not valid JSON of the expected shape.
    #[error("can't decode the record with key {key:?}: {source}")]
    Damaged {
        /// The key, shortened to 60 characters.
        key: String,
        source: serde_json::Error,
    },
    /// The checkpoint belongs to another table or instance.
    #[error(
        "the checkpoint of route {route} belongs to table {table} of instance {instance}: its configuration now \
         has another table or instance. Give the route a new name, so that it starts from scratch"
    )]
    WrongTable {
        route: String,
        /// Table of the checkpoint.
        table: String,
        /// Instance of the checkpoint.
        instance: String,
    },
}

/// Decodes a checkpoint record's value.
///
/// # Errors
/// If it is damaged or of another format.
pub fn decode_checkpoint(route: &str, value: &[u8]) -> Result<Checkpoint, StoredStateError> {
    #[derive(Deserialize)]
    struct Envelope {
        v: u32,
    }
    let damaged = |source| StoredStateError::Damaged { key: short(route.as_bytes()), source };
    let envelope: Envelope = serde_json::from_slice(value).map_err(damaged)?;
    if envelope.v != FORMAT_VERSION {
        return Err(StoredStateError::UnsupportedFormat { route: route.into(), found: envelope.v });
    }
    serde_json::from_slice(value).map_err(damaged)
}

/// Decodes a record of the rows topic. `None` if the key is not one that this release writes.
///
/// # Errors
/// If the value is damaged.
pub fn decode_state_record(key: &[u8], value: Option<&[u8]>) -> Result<Option<StateRecord>, StoredStateError> {
    let Ok(text) = std::str::from_utf8(key) else { return Ok(None) };
    let damaged = |source| StoredStateError::Damaged { key: short(key), source };
    let Some((kind, rest)) = text.split_once(':') else {
        let state = value.map(serde_json::from_slice::<RowState>).transpose().map_err(damaged)?;
        return Ok(Some(StateRecord::Row(text.into(), state.map(Box::new))));
    };
    let kind = match kind {
        "journal" => InsertOnlyTable::Journal,
        "delete" => InsertOnlyTable::Delete,
        _ => return Ok(None),
    };
    // A tombstone has only its key, so the key contains the time.
    let Some((at, sys_id)) = rest.split_once(':') else { return Ok(None) };
    let Ok(at) = at.parse() else { return Ok(None) };
    Ok(Some(StateRecord::Inserted { row: InsertedRow { at, kind, sys_id: sys_id.into() }, present: value.is_some() }))
}

/// Key and value of a record of the rows topic.
pub fn encode_state_record(record: &StateRecord) -> Result<(String, Option<Vec<u8>>), serde_json::Error> {
    match record {
        StateRecord::Row(sys_id, state) => Ok((sys_id.clone(), state.as_deref().map(serde_json::to_vec).transpose()?)),
        StateRecord::Inserted { row, present } => {
            let kind = match row.kind {
                InsertOnlyTable::Journal => "journal",
                InsertOnlyTable::Delete => "delete",
            };
            Ok((format!("{kind}:{}:{}", row.at, row.sys_id), present.then(|| b"1".to_vec())))
        }
    }
}

fn short(key: &[u8]) -> String {
    String::from_utf8_lossy(key).chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_state_record_decodes_to_itself() {
        let state: RowState = serde_json::from_str(r#"{"m":3,"c":10,"u":20,"v":{"state":"2"}}"#).unwrap();
        let inserted = InsertedRow { at: 17, kind: InsertOnlyTable::Journal, sys_id: "j1".into() };
        for record in [
            StateRecord::Row("a1".into(), Some(Box::new(state))),
            StateRecord::Row("a1".into(), None),
            StateRecord::Inserted { row: inserted.clone(), present: true },
            StateRecord::Inserted { row: inserted, present: false },
        ] {
            let (key, value) = encode_state_record(&record).unwrap();
            assert_eq!(decode_state_record(key.as_bytes(), value.as_deref()).unwrap(), Some(record));
        }
    }

    #[test]
    fn a_checkpoint_of_a_newer_format_is_an_error_and_not_a_first_start() {
        assert!(matches!(
            decode_checkpoint("r", br#"{"v":2,"x":1}"#),
            Err(StoredStateError::UnsupportedFormat { found: 2, .. })
        ));
        assert!(matches!(decode_checkpoint("r", b"{"), Err(StoredStateError::Damaged { .. })));
    }
}
