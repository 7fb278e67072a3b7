//! Parses the YAML file into a tree of values with their locations.
//!
//! serde stops at the first error, but all errors are to be reported. So the file is parsed into this tree first, which
//! fails only for a syntax error, and everything else is validated on the tree.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::errors::ConfigError;

/// Line and column, from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub(super) struct SourceLocation {
    pub line: u64,
    pub column: u64,
}

impl From<Location> for SourceLocation {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A value and its location.
pub(super) struct Node {
    pub location: SourceLocation,
    pub value: Value,
}

/// A YAML value. Numbers and booleans keep their spelling, because `0123` can be meant as text.
pub(super) enum Value {
    Null,
    Bool(bool, String),
    Number(serde_json::Number, String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, SourceLocation, Node)>),
}

impl Value {
    /// The kind of value, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(..) => "true or false",
            Self::Number(..) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Parses YAML.
///
/// # Errors
/// The first syntax error or duplicate key, at which the parser stops.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        reject_non_finite_typeless_float: false,
        with_snippet: false,
    };
    let parsed: Result<Spanned<AnyValue>, _> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(root) => Ok(node(root, text)),
        Err(error) => {
            let location = error.location().map(SourceLocation::from).unwrap_or_default();
            let text = error.to_string();
            let message = format!("invalid YAML: {}", text.lines().next().unwrap_or("unknown error").trim());
            Err(ConfigError { line: location.line, column: location.column, key: String::new(), message })
        }
    }
}

/// Any value, as deserialized by serde; children still contain the parser's locations.
enum AnyValue {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<AnyValue>>),
    Map(Vec<(Spanned<String>, Spanned<AnyValue>)>),
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValueVisitor)
    }
}

struct AnyValueVisitor;

impl<'de> Visitor<'de> for AnyValueVisitor {
    type Value = AnyValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<AnyValue, E> {
        Ok(AnyValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<AnyValue, E> {
        Ok(AnyValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<AnyValue, E> {
        Ok(AnyValue::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<AnyValue, E> {
        Ok(AnyValue::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<AnyValue, E> {
        Ok(serde_json::Number::from_f64(value).map_or_else(|| AnyValue::Text(value.to_string()), AnyValue::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<AnyValue, E> {
        Ok(AnyValue::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<AnyValue, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(AnyValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<AnyValue, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(AnyValue::Map(map))
    }
}

fn node(spanned: Spanned<AnyValue>, text: &str) -> Node {
    let spelled = |default: String| spelling(spanned.defined, text).unwrap_or(default);
    let value = match spanned.value {
        AnyValue::Null => Value::Null,
        AnyValue::Bool(value) => Value::Bool(value, spelled(value.to_string())),
        AnyValue::Number(value) => {
            let spelling = spelled(value.to_string());
            Value::Number(value, spelling)
        }
        AnyValue::Text(value) => Value::Text(value),
        AnyValue::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        AnyValue::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let location = SourceLocation::from(key.referenced);
                    let mut child = node(value, text);
                    // The parser locates a mapping at its first key; users look for the key above it.
                    if child.location.line == 0 || matches!(child.value, Value::Map(_)) {
                        child.location = location;
                    }
                    (key.value, location, child)
                })
                .collect(),
        ),
    };
    Node { location: SourceLocation::from(spanned.referenced), value }
}

/// The scalar as written in the file.
fn spelling(location: Location, text: &str) -> Option<String> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    let spelled = text.get(start..start.checked_add(length)?)?.trim();
    (!spelled.is_empty() && !spelled.contains(char::is_whitespace)).then(|| spelled.to_owned())
}
