//! Reads JSON bodies field by field: tolerant where no meaning is lost, with errors that contain the path.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{DecodeError, MAX_BODY, MAX_LABELS, MAX_TEXT};
use crate::model::Record;

/// Parses the value of a record as a JSON object.
pub(super) fn body(record: &Record) -> Result<Map<String, Value>, DecodeError> {
    let bytes = record.value.as_deref().unwrap_or_default();
    if bytes.len() > MAX_BODY {
        let message =
            format!("the record has {} bytes, and the limit is {MAX_BODY}; publish smaller records", bytes.len());
        return Err(DecodeError { code: "oversized", path: "$".into(), message });
    }
    if bytes.first() == Some(&0) {
        return Err(undecodable("$", "the value looks like Avro in the Confluent wire format; publish JSON".into()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(undecodable("$", format!("expected one JSON object per record, found {}", json_type(&other)))),
        Err(error) => Err(undecodable("$", format!("invalid JSON ({error}); publish one JSON object per record"))),
    }
}

/// Returns an error with the code `undecodable`.
pub(super) fn undecodable(path: &str, message: String) -> DecodeError {
    DecodeError { code: "undecodable", path: path.to_owned(), message }
}

/// Returns the type of a value, for error messages.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads a text field: numbers and booleans become text, null and blank become `None`. Texts are truncated to
/// [`MAX_TEXT`] characters.
pub(super) fn text(object: &Map<String, Value>, key: &str, path: &str) -> Result<Option<String>, DecodeError> {
    Ok(match object.get(key) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => (!text.trim().is_empty()).then(|| truncate(text, MAX_TEXT)),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::Bool(value)) => Some(value.to_string()),
        Some(other) => {
            return Err(undecodable(&format!("{path}.{key}"), format!("expected text, found {}", json_type(other))));
        }
    })
}

/// Reads an object field.
pub(super) fn object<'a>(
    parent: &'a Map<String, Value>,
    key: &str,
    path: &str,
) -> Result<Option<&'a Map<String, Value>>, DecodeError> {
    match parent.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => {
            Err(undecodable(&format!("{path}.{key}"), format!("expected an object, found {}", json_type(other))))
        }
    }
}

/// Reads a field with labels: values of any type become text, nested ones their JSON.
pub(super) fn labels(
    parent: &Map<String, Value>,
    key: &str,
    path: &str,
) -> Result<BTreeMap<String, String>, DecodeError> {
    let Some(labels) = object(parent, key, path)? else { return Ok(BTreeMap::new()) };
    if labels.len() > MAX_LABELS {
        let message = format!("there are {} labels, and the limit is {MAX_LABELS}; publish fewer", labels.len());
        return Err(undecodable(&format!("{path}.{key}"), message));
    }
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => truncate(text, MAX_TEXT),
        other => truncate(&other.to_string(), MAX_TEXT),
    };
    Ok(labels.iter().map(|(name, label)| (name.clone(), text(label))).collect())
}

/// Returns the first `length` characters.
pub(super) fn truncate(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => text.get(..end).unwrap_or(text).to_owned(),
        None => text.to_owned(),
    }
}
