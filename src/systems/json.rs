//! Reading JSON bodies field by field, tolerant where no meaning is lost, with errors that name the place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{DecodeError, MAX_BODY, MAX_LABELS, MAX_TEXT};
use crate::model::Record;

/// The body of a record as a JSON object.
pub(super) fn body(record: &Record) -> Result<Map<String, Value>, DecodeError> {
    let bytes = record.value.as_deref().unwrap_or_default();
    if bytes.len() > MAX_BODY {
        let message = format!("the record has {} bytes, and at most {MAX_BODY} are read; publish less", bytes.len());
        return Err(DecodeError { code: "oversized", at: "$".into(), message });
    }
    if bytes.first() == Some(&0) {
        return Err(wrong("$", "the value looks like Confluent-framed Avro; publish JSON, or decode it before".into()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(wrong("$", format!("this is {}; publish one JSON object in each record", kind(&other)))),
        Err(error) => {
            Err(wrong("$", format!("this is no valid JSON ({error}); publish one JSON object in each record")))
        }
    }
}

/// An error of shape.
pub(super) fn wrong(at: &str, message: String) -> DecodeError {
    DecodeError { code: "undecodable", at: at.to_owned(), message }
}

/// For messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Text at a key: numbers and booleans as text, null and blank as nothing, cut to [`MAX_TEXT`] characters.
pub(super) fn text(object: &Map<String, Value>, key: &str, at: &str) -> Result<Option<String>, DecodeError> {
    Ok(match object.get(key) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => (!text.trim().is_empty()).then(|| cut(text, MAX_TEXT)),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::Bool(value)) => Some(value.to_string()),
        Some(other) => return Err(wrong(&format!("{at}.{key}"), format!("this is {}; give text", kind(other)))),
    })
}

/// An object at a key.
pub(super) fn object<'a>(
    of: &'a Map<String, Value>,
    key: &str,
    at: &str,
) -> Result<Option<&'a Map<String, Value>>, DecodeError> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => Err(wrong(&format!("{at}.{key}"), format!("this is {}; give an object", kind(other)))),
    }
}

/// Labels at a key: values of any kind become text, nested ones their JSON.
pub(super) fn labels(of: &Map<String, Value>, key: &str, at: &str) -> Result<BTreeMap<String, String>, DecodeError> {
    let Some(labels) = object(of, key, at)? else { return Ok(BTreeMap::new()) };
    if labels.len() > MAX_LABELS {
        let message = format!("there are {} labels, and at most {MAX_LABELS} are taken; leave some out", labels.len());
        return Err(wrong(&format!("{at}.{key}"), message));
    }
    let value = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => cut(text, MAX_TEXT),
        other => cut(&other.to_string(), MAX_TEXT),
    };
    Ok(labels.iter().map(|(name, label)| (name.clone(), value(label))).collect())
}

/// The first `length` characters.
pub(super) fn cut(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => text.get(..end).unwrap_or(text).to_owned(),
        None => text.to_owned(),
    }
}
