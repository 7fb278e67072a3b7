//! The YAML file as a tree of values that know their place.
//!
//! serde reports the first error and stops; a person wants all of them. So the file is parsed into this tree first,
//! which fails only where it is no YAML, and everything else is checked on the tree.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::problems::ConfigError;

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

/// A value and where it stands.
pub(super) struct Node {
    pub place: SourceLocation,
    pub value: Value,
}

/// A YAML value. Numbers and booleans keep their spelling, because `0123` may well be meant as text.
pub(super) enum Value {
    Null,
    Bool(bool, String),
    Number(serde_json::Number, String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, SourceLocation, Node)>),
}

impl Value {
    /// For messages.
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
/// The one syntax error (or a duplicate key) at which the parser stopped.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        reject_non_finite_typeless_float: false,
        with_snippet: false,
    };
    let parsed: Result<Spanned<Loose>, _> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(root) => Ok(node(root, text)),
        Err(error) => {
            let place = error.location().map(SourceLocation::from).unwrap_or_default();
            let said = error.to_string();
            let message = format!("this is no valid YAML: {}", said.lines().next().unwrap_or("unknown error").trim());
            Err(ConfigError { line: place.line, column: place.column, at: String::new(), message })
        }
    }
}

/// What serde sees; children still carry the parser's locations.
enum Loose {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<Loose>>),
    Map(Vec<(Spanned<String>, Spanned<Loose>)>),
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Loose, E> {
        Ok(Loose::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Loose, E> {
        Ok(Loose::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Loose, E> {
        Ok(Loose::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Loose, E> {
        Ok(serde_json::Number::from_f64(value).map_or_else(|| Loose::Text(value.to_string()), Loose::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Loose, E> {
        Ok(Loose::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Loose::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Loose, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Loose::Map(map))
    }
}

fn node(spanned: Spanned<Loose>, text: &str) -> Node {
    let spelled = |otherwise: String| spelling(spanned.defined, text).unwrap_or(otherwise);
    let value = match spanned.value {
        Loose::Null => Value::Null,
        Loose::Bool(value) => Value::Bool(value, spelled(value.to_string())),
        Loose::Number(value) => {
            let spelling = spelled(value.to_string());
            Value::Number(value, spelling)
        }
        Loose::Text(value) => Value::Text(value),
        Loose::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Loose::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let place = SourceLocation::from(key.referenced);
                    let mut child = node(value, text);
                    // A mapping begins where its first key stands; people look for the key above it.
                    if child.place.line == 0 || matches!(child.value, Value::Map(_)) {
                        child.place = place;
                    }
                    (key.value, place, child)
                })
                .collect(),
        ),
    };
    Node { place: SourceLocation::from(spanned.referenced), value }
}

/// The scalar as it stands in the file.
fn spelling(location: Location, text: &str) -> Option<String> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    let spelled = text.get(start..start.checked_add(length)?)?.trim();
    (!spelled.is_empty() && !spelled.contains(char::is_whitespace)).then(|| spelled.to_owned())
}
