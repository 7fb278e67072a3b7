//! Whether a record's key keeps its alerts in one partition.

use super::DecodeError;
use crate::model::{AlertEvent, Record};

/// The record's key must be the key of every event in it.
pub(super) fn check(record: &Record, events: &[AlertEvent]) -> Result<(), DecodeError> {
    let Some(event) = events.iter().find(|e| record.key.as_deref() != Some(e.key.as_bytes())) else { return Ok(()) };
    const WHAT_TO_DO: &str = "publish each alert under its own key, give the topic one partition, or give a new route \
                              `rekey: true` (or `copartitioned: true` if all records of an alert certainly share a \
                              partition)";
    Err(match &record.key {
        None => DecodeError {
            code: "missing_key",
            at: "key".into(),
            message: format!(
                "the record has no key, the topic has several partitions, and the alert is `{}`; {WHAT_TO_DO}",
                event.key
            ),
        },
        Some(key) => DecodeError {
            code: "key_mismatch",
            at: "key".into(),
            message: format!(
                "the record's key is `{}`, but the alert in it is `{}`; {WHAT_TO_DO}",
                shown(key),
                event.key
            ),
        },
    })
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}
