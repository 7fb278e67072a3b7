//! A dead letter: the original record, byte for byte, with headers that contain the reason.
//!
//! Key, value and all headers of the original are kept, in order, including duplicates and nulls. The headers of the
//! bridge begin with `nowbridge-` and come after them. If a dead letter is redriven and rejected again, its older
//! `nowbridge-` headers are replaced, so that they do not accumulate; only the number of its redrives, its original
//! position, and the headers of a resync or of an event of a group are kept.

use crate::model::record::Header;
use crate::model::{Position, Record};

/// What the headers of a dead letter say.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterDetails<'a> {
    /// Stable code, such as `undecodable`, `data_policy` or `parked`.
    pub code: &'a str,
    /// Number of the error's page, such as `SN-006`; empty if there is none.
    pub explain: &'a str,
    /// Message of the instance, the decoder or the mapping.
    pub reason: &'a str,
    /// Position of the event.
    pub position: Position,
    /// The alert's key, if known.
    pub key: Option<&'a str>,
    pub route: &'a str,
    /// Position of the original in the user's topic, if the record was repartitioned.
    pub origin: Option<&'a str>,
    /// Positions of the records whose values it superseded.
    pub superseded: &'a [Position],
}

/// Characters of the reason that are kept.
const MAX_REASON: usize = 4_000;

/// Superseded positions that are listed; the header with their number counts all.
const MAX_SUPERSEDED: usize = 500;

/// Returns key, value and headers of the dead letter of `record`. `now` is Unix milliseconds.
pub fn dead_letter(
    record: &Record,
    details: &DeadLetterDetails<'_>,
    now: i64,
) -> (Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>) {
    let mut headers = foreign_headers(record);
    let redrives = super::redrive_count(record);
    let mut add = |name: &str, value: String| headers.push((format!("nowbridge-{name}"), Some(value.into_bytes())));
    add("code", details.code.into());
    if !details.explain.is_empty() {
        add("explain", details.explain.into());
    }
    add("reason", details.reason.chars().take(MAX_REASON).collect());
    add("route", details.route.into());
    add("topic", record.topic.to_string());
    add("position", details.position.to_string());
    if let Some(key) = details.key {
        add("key", key.into());
    }
    if let Some(origin) = details.origin {
        add("origin", origin.into());
    }
    if let Some(timestamp) = record.timestamp {
        add("timestamp", timestamp.to_string());
    }
    add("time", super::json::rfc3339(now));
    if redrives > 0 {
        add("redrives", redrives.to_string());
        if let Some(original) = super::original_position(record) {
            add("original", original.to_owned());
        }
    }
    if !details.superseded.is_empty() {
        let listed: Vec<String> = details.superseded.iter().take(MAX_SUPERSEDED).map(Position::to_string).collect();
        add("superseded", listed.join(","));
        add("superseded-count", details.superseded.len().to_string());
    }
    headers.extend(super::resync::resync_header(record));
    headers.extend(super::repartitioned::group_event_header(record));
    (record.key.clone(), record.value.clone(), headers)
}

/// Returns the headers of a record that the bridge has not added.
pub(super) fn foreign_headers(record: &Record) -> Vec<Header> {
    record.headers.iter().filter(|(name, _)| !is_own(name)).cloned().collect()
}

fn is_own(name: &str) -> bool {
    name.get(..10).is_some_and(|head| head.eq_ignore_ascii_case("nowbridge-"))
}
