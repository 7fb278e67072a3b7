//! A dead letter: the original record, byte for byte, with headers that say what happened.
//!
//! Key, value and every header of the original are kept, in order, duplicates and nulls too; ours begin with
//! `nowbridge-` and come after them. A dead letter that is redriven and fails again drops the older `nowbridge-`
//! headers, so that they never pile up, but for the number of its redrives.

use crate::model::record::Header;
use crate::model::{Position, Record};

/// What there is to say about a record that could not be applied.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// Stable code: `undecodable`, `data_policy`, `parked`, `in_doubt`…
    pub code: &'a str,
    /// Short name of the page that explains it; empty where there is none.
    pub explain: &'a str,
    /// What the instance or the decoder said.
    pub reason: &'a str,
    /// Which of the record's events.
    pub position: Position,
    /// The alert's key, where known.
    pub key: Option<&'a str>,
    /// Name of the route.
    pub route: &'a str,
    /// Where the record stood in the input, if it was re-keyed.
    pub origin: Option<&'a str>,
    /// Positions of records whose values it superseded.
    pub superseded: &'a [Position],
}

/// Characters of the reason that are kept.
const REASON: usize = 4_000;

/// Superseded positions that are listed; their number is given in full.
const SUPERSEDED: usize = 500;

/// Key, value and headers of the dead letter of `record`. `now` is Unix milliseconds.
pub fn dead_letter(record: &Record, letter: &Letter<'_>, now: i64) -> (Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>) {
    let mut headers = foreign_headers(record);
    let redrives = super::times_redriven(record);
    let mut add = |name: &str, value: String| headers.push((format!("nowbridge-{name}"), Some(value.into_bytes())));
    add("code", letter.code.into());
    if !letter.explain.is_empty() {
        add("explain", letter.explain.into());
    }
    add("reason", letter.reason.chars().take(REASON).collect());
    add("route", letter.route.into());
    add("topic", record.topic.to_string());
    add("position", letter.position.to_string());
    if let Some(key) = letter.key {
        add("key", key.into());
    }
    if let Some(origin) = letter.origin {
        add("origin", origin.into());
    }
    if let Some(timestamp) = record.timestamp {
        add("timestamp", timestamp.to_string());
    }
    add("time", super::json::rfc3339(now));
    if redrives > 0 {
        add("redrives", redrives.to_string());
        if let Some(original) = super::original(record) {
            add("original", original.to_owned());
        }
    }
    if !letter.superseded.is_empty() {
        let listed: Vec<String> = letter.superseded.iter().take(SUPERSEDED).map(Position::to_string).collect();
        add("superseded", listed.join(","));
        add("superseded-count", letter.superseded.len().to_string());
    }
    headers.extend(super::resync::resync_header(record));
    headers.extend(super::rekeyed::digest_header(record));
    (record.key.clone(), record.value.clone(), headers)
}

/// A record's headers without ours.
pub(super) fn foreign_headers(record: &Record) -> Vec<Header> {
    record.headers.iter().filter(|(name, _)| !is_ours(name)).cloned().collect()
}

fn is_ours(name: &str) -> bool {
    name.get(..10).is_some_and(|head| head.eq_ignore_ascii_case("nowbridge-"))
}
