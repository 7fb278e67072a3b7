//! Parses and formats times in events.

use serde_json::{Map, Value};

use super::DecodeError;
use super::json::{text, undecodable};

/// Reads a field with an RFC 3339 time; Unix milliseconds.
pub(super) fn time_field(object: &Map<String, Value>, key: &str, path: &str) -> Result<Option<i64>, DecodeError> {
    let Some(text) = text(object, key, path)? else { return Ok(None) };
    match parse(&text) {
        Some(time) => Ok(Some(time)),
        None => {
            let message = format!("`{text}` is not a time; use RFC 3339 with a zone, such as `2026-01-31T12:00:00Z`");
            Err(undecodable(&format!("{path}.{key}"), message))
        }
    }
}

/// Parses an RFC 3339 time; Unix milliseconds. Go's zero time (year 1) means no time: `None`.
pub(super) fn parse(text: &str) -> Option<i64> {
    let time = text.trim().parse::<jiff::Timestamp>().ok()?.as_millisecond();
    // Year 1 in any time zone, and the years next to it.
    (time > -62_000_000_000_000).then_some(time)
}

/// Formats Unix milliseconds as RFC 3339.
pub(super) fn format_rfc3339(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
}
