//! Times in events.

use serde_json::{Map, Value};

use super::DecodeError;
use super::json::{text, wrong};

/// An RFC 3339 time at a key, as Unix milliseconds.
pub(super) fn rfc3339(object: &Map<String, Value>, key: &str, at: &str) -> Result<Option<i64>, DecodeError> {
    let Some(text) = text(object, key, at)? else { return Ok(None) };
    match parse(&text) {
        Some(time) => Ok(Some(time)),
        None => {
            let message = format!("`{text}` is no time; write it with its zone, such as `2026-01-31T12:00:00Z`");
            Err(wrong(&format!("{at}.{key}"), message))
        }
    }
}

/// An RFC 3339 time. Go's zero time, year 1, stands for no time and gives `None`.
pub(super) fn parse(text: &str) -> Option<i64> {
    let time = text.trim().parse::<jiff::Timestamp>().ok()?.as_millisecond();
    // Year 1 and its neighbours by any time zone.
    (time > -62_000_000_000_000).then_some(time)
}

/// For the JSON of an event.
pub(super) fn show(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
}
