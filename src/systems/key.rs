//! Checks that a record's key assigns its alerts to one partition.

use super::DecodeError;
use crate::model::{AlertEvent, Record};

/// Checks that the record's key equals the key of each of its events.
pub(super) fn check(record: &Record, events: &[AlertEvent]) -> Result<(), DecodeError> {
    let Some(event) = events.iter().find(|e| record.key.as_deref() != Some(e.key.as_bytes())) else { return Ok(()) };
    const REMEDY: &str = "publish each alert with its own key, use a topic with one partition, or set `repartition: \
                          true` on a new route (or `keyed_by_alert: true` if something else guarantees that all records \
                          of an alert share a partition)";
    Err(match &record.key {
        None => DecodeError {
            code: "missing_key",
            path: "key".into(),
            message: format!(
                "the record has no key, the topic has several partitions, and the alert's key is `{}`; {REMEDY}",
                event.key
            ),
        },
        Some(key) => DecodeError {
            code: "key_mismatch",
            path: "key".into(),
            message: format!(
                "the record's key is `{}`, but the alert's key is `{}`; {REMEDY}",
                lossy_text(key),
                event.key
            ),
        },
    })
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}
