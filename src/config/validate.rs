//! Validates the tree of the file against the JSON schema of the raw configuration, and returns plain JSON that serde
//! can always deserialize.
//!
//! The schema is derived from the structs of `raw.rs`, so this validation, serde and the editor schema
//! (`schemas/config.schema.json`) always agree. Invalid values are reported and omitted, so that later checks can run
//! and all errors are reported at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::errors::ConfigError;
use super::interpolate::{Env, interpolate};
use super::tree::{Node, SourceLocation, Value};

/// The result of a validation.
pub(super) struct Validated {
    /// The valid part of the file, for serde.
    pub json: Json,
    /// The location of each key, by its path.
    pub locations: BTreeMap<String, SourceLocation>,
    pub errors: Vec<ConfigError>,
}

/// Validates `root` against `schema`.
pub(super) fn validate(root: &Node, schema: &Json, env: Env<'_>) -> Validated {
    let mut validator =
        Validator { definitions: schema.get("$defs"), env, locations: BTreeMap::new(), errors: Vec::new() };
    let json = validator.value(root, schema, "").unwrap_or_else(|| Json::Object(Map::new()));
    Validated { json, locations: validator.locations, errors: validator.errors }
}

/// Returns the path of `key` below `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let key = if key.chars().all(plain) && !key.is_empty() { key.to_owned() } else { format!("'{key}'") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

struct Validator<'a> {
    definitions: Option<&'a Json>,
    env: Env<'a>,
    locations: BTreeMap<String, SourceLocation>,
    errors: Vec<ConfigError>,
}

impl<'a> Validator<'a> {
    fn error(&mut self, location: SourceLocation, path: &str, message: String) {
        self.errors.push(ConfigError { line: location.line, column: location.column, key: path.to_owned(), message });
    }

    /// Resolves references, and selects the only alternative that is not null.
    fn dereference(&self, mut schema: &'a Json) -> &'a Json {
        // A definition never refers to itself without a level of nesting in between. The bound prevents an endless loop
        // if that is violated.
        for _ in 0..16 {
            if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
                let name = reference.rsplit('/').next().unwrap_or_default();
                let Some(found) = self.definitions.and_then(|d| d.get(name)) else { return schema };
                schema = found;
            } else if let Some(inner) = schema
                .get("anyOf")
                .and_then(Json::as_array)
                .and_then(|all| all.iter().find(|s| s.get("type").and_then(Json::as_str) != Some("null")))
            {
                schema = inner;
            } else {
                return schema;
            }
        }
        schema
    }

    /// Returns the JSON of a node; `None` if it is empty, or invalid (and reported).
    fn value(&mut self, node: &Node, schema: &'a Json, path: &str) -> Option<Json> {
        self.locations.insert(path.to_owned(), node.location);
        let schema = self.dereference(schema);
        if matches!(node.value, Value::Null) {
            return None;
        }
        if let Some(accepted) = enum_values(schema) {
            return self.enum_value(node, &accepted, path);
        }
        match schema_type(schema) {
            "object" => self.object(node, schema, path),
            "array" => self.array(node, schema, path),
            "string" => self.text(node, path).map(Json::String),
            "integer" => self.integer(node, schema, path),
            "boolean" => self.boolean(node, path),
            _ => None,
        }
    }

    fn report_type_mismatch(&mut self, node: &Node, path: &str, expected: &str) {
        self.error(node.location, path, format!("expected {expected}, found {}", node.value.kind()));
    }

    fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => match interpolate(text, self.env) {
                Ok(text) => Some(text),
                Err(message) => {
                    self.error(node.location, path, message);
                    None
                }
            },
            Value::Bool(_, spelled) | Value::Number(_, spelled) => Some(spelled.clone()),
            _ => {
                self.report_type_mismatch(node, path, "text");
                None
            }
        }
    }

    fn enum_value(&mut self, node: &Node, accepted: &[&str], path: &str) -> Option<Json> {
        let text = self.text(node, path)?;
        if accepted.contains(&text.as_str()) {
            return Some(Json::String(text));
        }
        let message = format!("unknown value `{text}`; accepted: {}", accepted.join(", "));
        self.error(node.location, path, message);
        None
    }

    fn integer(&mut self, node: &Node, schema: &Json, path: &str) -> Option<Json> {
        let number = match &node.value {
            Value::Number(number, _) => number.as_i64(),
            Value::Text(_) => self.text(node, path)?.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.report_type_mismatch(node, path, "a whole number");
            return None;
        };
        let min = schema.get("minimum").and_then(Json::as_i64).unwrap_or(i64::MIN);
        let max = schema.get("maximum").and_then(Json::as_i64).unwrap_or(i64::from(u32::MAX));
        if number < min || number > max {
            self.error(node.location, path, format!("{number} is out of range; accepted: {min} to {max}"));
            return None;
        }
        Some(number.into())
    }

    fn boolean(&mut self, node: &Node, path: &str) -> Option<Json> {
        let value = match &node.value {
            Value::Bool(value, _) => Some(*value),
            Value::Text(_) => self.text(node, path)?.trim().parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.report_type_mismatch(node, path, "`true` or `false`");
        }
        value.map(Json::Bool)
    }

    fn array(&mut self, node: &Node, schema: &'a Json, path: &str) -> Option<Json> {
        let Value::List(items) = &node.value else {
            self.report_type_mismatch(node, path, "a list (`[a, b]`, or lines that start with `- `)");
            return None;
        };
        let inner = schema.get("items").unwrap_or(&Json::Null);
        let items: Vec<Json> = items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| self.value(item, inner, &format!("{path}[{index}]")))
            .collect();
        Some(Json::Array(items))
    }

    fn object(&mut self, node: &Node, schema: &'a Json, path: &str) -> Option<Json> {
        let Value::Map(entries) = &node.value else {
            self.report_type_mismatch(node, path, "a mapping (`key: value` lines)");
            return None;
        };
        let properties = schema.get("properties").and_then(Json::as_object);
        // In maps with arbitrary keys, null removes a default; in structs it is the same as a missing key.
        let map_values = schema.get("additionalProperties").filter(|s| s.is_object());
        let mut json = Map::new();
        for (key, location, child) in entries {
            let below = join(path, key);
            if let Some(inner) = properties.and_then(|p| p.get(key)) {
                if let Some(value) = self.value(child, inner, &below) {
                    json.insert(key.clone(), value);
                }
            } else if let Some(inner) = map_values {
                match self.value(child, inner, &below) {
                    Some(value) => _ = json.insert(key.clone(), value),
                    None if matches!(child.value, Value::Null) => _ = json.insert(key.clone(), Json::Null),
                    None => {}
                }
                if matches!(child.value, Value::Null) && !nullable(inner) {
                    self.error(*location, &below, "the key has no value; set one or remove the key".into());
                    json.remove(key);
                }
            } else {
                self.report_unknown_key(key, *location, &below, properties);
            }
        }
        self.report_missing_keys(node, entries, schema, path);
        Some(Json::Object(json))
    }

    fn report_unknown_key(
        &mut self,
        key: &str,
        location: SourceLocation,
        below: &str,
        properties: Option<&Map<String, Json>>,
    ) {
        let mut accepted: Vec<&str> = properties.map(|p| p.keys().map(String::as_str).collect()).unwrap_or_default();
        accepted.sort_unstable();
        let near = accepted.iter().find(|name| is_typo_of(name, key));
        let hint = near.map_or("accepted".to_owned(), |name| format!("did you mean `{name}`? Accepted"));
        self.error(location, below, format!("unknown key `{key}`; {hint}: {}", accepted.join(", ")));
    }

    fn report_missing_keys(
        &mut self,
        node: &Node,
        entries: &[(String, SourceLocation, Node)],
        schema: &Json,
        path: &str,
    ) {
        let required = schema.get("required").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        for name in required.iter().filter_map(Json::as_str) {
            if entries.iter().any(|(key, _, child)| key == name && !matches!(child.value, Value::Null)) {
                continue;
            }
            let about = schema
                .get("properties")
                .and_then(|p| p.get(name))
                .and_then(|p| p.get("description"))
                .and_then(Json::as_str)
                .and_then(|text| text.split("\n\n").next())
                .map(|text| format!(": {}", text.replace('\n', " ")))
                .unwrap_or_default();
            self.error(node.location, path, format!("`{name}` is missing{about}"));
        }
    }
}

/// The accepted values of an enumeration; `None` for any other schema.
fn enum_values(schema: &Json) -> Option<Vec<&str>> {
    if let Some(all) = schema.get("enum").and_then(Json::as_array) {
        return Some(all.iter().filter_map(Json::as_str).collect());
    }
    let all = schema.get("oneOf").and_then(Json::as_array)?;
    let mut names = Vec::new();
    for variant in all {
        if let Some(name) = variant.get("const").and_then(Json::as_str) {
            names.push(name);
        } else {
            names.extend(variant.get("enum")?.as_array()?.iter().filter_map(Json::as_str));
        }
    }
    Some(names)
}

fn schema_type(schema: &Json) -> &str {
    match schema.get("type") {
        Some(Json::String(kind)) => kind,
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).find(|k| *k != "null").unwrap_or(""),
        _ => "",
    }
}

fn nullable(schema: &Json) -> bool {
    schema.get("type").and_then(Json::as_array).is_some_and(|kinds| kinds.iter().any(|k| k == "null"))
        || schema.get("anyOf").is_some()
}

/// True if the texts differ by one or two adjacent characters added or omitted, one changed, or two swapped.
fn is_typo_of(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (a, b) = (a.get(start..).unwrap_or_default(), b.get(start..).unwrap_or_default());
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (a.get(..a.len() - end).unwrap_or_default(), b.get(..b.len() - end).unwrap_or_default());
    match (a, b) {
        ([], [_] | [_, _]) | ([_] | [_, _], []) | ([_], [_]) => true,
        ([x1, x2], [y1, y2]) => x1 == y2 && x2 == y1,
        _ => false,
    }
}
