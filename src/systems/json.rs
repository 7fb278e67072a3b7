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
    match serde_json::from_slice(without_bom(bytes)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(undecodable("$", format!("expected one JSON object per record, found {}", json_type(&other)))),
        Err(error) => Err(undecodable("$", format!("invalid JSON ({error}); publish one JSON object per record"))),
    }
}

/// The same object with the numbers as texts that would lose digits otherwise: `1.10`, or one above 2^64. `None` if no
/// number would. A key must keep every digit, or two alerts would share a ticket.
pub(super) fn with_exact_numbers(record: &Record) -> Option<Map<String, Value>> {
    let quoted = quote_lossy_numbers(without_bom(record.value.as_deref().unwrap_or_default()))?;
    serde_json::from_slice(&quoted).ok()
}

/// The bytes after a byte order mark.
fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Puts quotes around the numbers of valid JSON whose digits parsing would change; `None` if there are none.
fn quote_lossy_numbers(json: &[u8]) -> Option<Vec<u8>> {
    let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let starts_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = json.get(at) {
        if *byte == b'"' {
            at += 1;
            while let Some(byte) = json.get(at).filter(|byte| **byte != b'"') {
                at += if *byte == b'\\' { 2 } else { 1 };
            }
        } else if starts_number(byte) {
            let end = json[at..].iter().position(|byte| !in_number(byte)).map_or(json.len(), |length| at + length);
            let digits = &json[at..end];
            let parsed: Option<serde_json::Number> = serde_json::from_slice(digits).ok();
            if parsed.is_some_and(|number| number.to_string().as_bytes() != digits) {
                out.extend_from_slice(&json[copied..at]);
                out.extend([b"\"", digits, b"\""].concat());
                copied = end;
            }
            at = end;
            continue;
        }
        at += 1;
    }
    (copied > 0).then(|| [out.as_slice(), &json[copied..]].concat())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_lose_digits_become_texts() {
        let quoted =
            |json: &str| quote_lossy_numbers(json.as_bytes()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let json = r#"{"key":36893488147419103233,"a":[1.10,-0,7,1.5,"1.10 \" 2.0"],"b":1e3}"#;
        let expected = r#"{"key":"36893488147419103233","a":["1.10",-0,7,1.5,"1.10 \" 2.0"],"b":"1e3"}"#;
        assert_eq!(quoted(json).map(|text| text.replace("\"-0\"", "-0")), Some(expected.to_owned()));
        assert_eq!(quoted(r#"{"key":18446744073709551615,"x":"36893488147419103233"}"#), None);
    }
}
