//! The stored progress of a route: the value of its record in the checkpoints topic, and the records of its rows
//! topic. Both are JSON, versioned, and read typed.
//!
//! Rows topic: key `<sys_id>` with a [`RowState`]; keys `journal:<time>:<sys_id>` and `delete:<time>:<sys_id>`
//! for entries that were published and that the overlap may return again. Tombstones remove.

use serde::{Deserialize, Serialize};

use super::rows::{Mark, MarkKind, RowState, StateRecord};
use super::window::Track;

/// Version of the record's form that this release writes and reads.
pub const FORM: u32 = 1;

/// Where a route stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Form of the record, [`FORM`].
    pub v: u32,
    /// The route.
    pub route: String,
    /// Name of the instance that the cursors belong to.
    pub instance: String,
    /// The table that the cursors belong to.
    pub table: String,
    /// Rises with every checkpoint written: tells the newest where two partitions hold one.
    pub seq: u64,
    /// The instance's clock when the route first started, Unix seconds.
    pub born: i64,
    /// Nothing older than this is read, Unix seconds.
    pub floor: i64,
    /// The polled table.
    pub rows: Track,
    /// `sys_journal_field`.
    pub journal: Track,
    /// `sys_audit_delete`.
    pub deletes: Track,
}

/// A record that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not of a form known to this release.
    #[error("the checkpoint of route {route} has form {got}; this release reads form {FORM}: run the newer release")]
    Newer {
        /// The route.
        route: String,
        /// Its form.
        got: u32,
    },
    /// Damaged.
    #[error("a record with key {key:?} cannot be read: {source}")]
    Damaged {
        /// The key, shortened.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Belongs to something else.
    #[error(
        "the checkpoint of route {route} belongs to table {table} of instance {instance}: the route was given another \
         table or instance; name the route anew, so that it starts afresh"
    )]
    Foreign {
        /// The route.
        route: String,
        /// Table of the checkpoint.
        table: String,
        /// Instance of the checkpoint.
        instance: String,
    },
}

/// Reads a checkpoint record's value.
///
/// # Errors
/// Where it is damaged or of another form.
pub fn read_checkpoint(route: &str, value: &[u8]) -> Result<Checkpoint, WireError> {
    #[derive(Deserialize)]
    struct Form {
        v: u32,
    }
    let damaged = |source| WireError::Damaged { key: short(route.as_bytes()), source };
    let form: Form = serde_json::from_slice(value).map_err(damaged)?;
    if form.v != FORM {
        return Err(WireError::Newer { route: route.into(), got: form.v });
    }
    serde_json::from_slice(value).map_err(damaged)
}

/// Reads a record of the rows topic. `None` where the key is not one that this release writes.
///
/// # Errors
/// Where the value is damaged.
pub fn read_memo(key: &[u8], value: Option<&[u8]>) -> Result<Option<StateRecord>, WireError> {
    let Ok(text) = std::str::from_utf8(key) else { return Ok(None) };
    let damaged = |source| WireError::Damaged { key: short(key), source };
    let Some((kind, rest)) = text.split_once(':') else {
        let state = value.map(serde_json::from_slice::<RowState>).transpose().map_err(damaged)?;
        return Ok(Some(StateRecord::Row(text.into(), state.map(Box::new))));
    };
    let kind = match kind {
        "journal" => MarkKind::Journal,
        "delete" => MarkKind::Delete,
        _ => return Ok(None),
    };
    // The tombstone's key alone names the mark, so the time is part of the key.
    let Some((at, sys_id)) = rest.split_once(':') else { return Ok(None) };
    let Ok(at) = at.parse() else { return Ok(None) };
    Ok(Some(StateRecord::Mark(Mark { at, kind, sys_id: sys_id.into() }, value.is_some())))
}

/// Key and value of a record of the rows topic.
pub fn write_memo(memo: &StateRecord) -> Result<(String, Option<Vec<u8>>), serde_json::Error> {
    match memo {
        StateRecord::Row(sys_id, state) => Ok((sys_id.clone(), state.as_deref().map(serde_json::to_vec).transpose()?)),
        StateRecord::Mark(mark, stands) => {
            let kind = match mark.kind {
                MarkKind::Journal => "journal",
                MarkKind::Delete => "delete",
            };
            Ok((format!("{kind}:{}:{}", mark.at, mark.sys_id), stands.then(|| b"1".to_vec())))
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
    fn what_is_written_is_read_again() {
        let state: RowState = serde_json::from_str(r#"{"m":3,"c":10,"u":20,"v":{"state":"2"}}"#).unwrap();
        let mark = Mark { at: 17, kind: MarkKind::Journal, sys_id: "j1".into() };
        for memo in [
            StateRecord::Row("a1".into(), Some(Box::new(state))),
            StateRecord::Row("a1".into(), None),
            StateRecord::Mark(mark.clone(), true),
            StateRecord::Mark(mark, false),
        ] {
            let (key, value) = write_memo(&memo).unwrap();
            assert_eq!(read_memo(key.as_bytes(), value.as_deref()).unwrap(), Some(memo));
        }
    }

    #[test]
    fn a_checkpoint_of_a_newer_form_is_refused_and_not_taken_for_a_first_start() {
        assert!(matches!(read_checkpoint("r", br#"{"v":2,"x":1}"#), Err(WireError::Newer { got: 2, .. })));
        assert!(matches!(read_checkpoint("r", b"{"), Err(WireError::Damaged { .. })));
    }
}
