//! Checks the tree of the file against the JSON schema of the raw configuration, and gives plain JSON that serde
//! then reads without fail.
//!
//! The schema comes from the structs of `raw.rs` by derive, so there is one description of the file: what this
//! checks, what serde reads and what `schemas/config.schema.json` tells an editor are the same. Whatever is wrong is
//! reported and left out, so that the checks that follow can go on and everything is reported at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::interpolate::{Env, interpolate};
use super::problems::ConfigError;
use super::tree::{Node, SourceLocation, Value};

/// What came of it.
pub(super) struct Shaped {
    /// What serde reads.
    pub json: Json,
    /// Where each key stands, by its path.
    pub places: BTreeMap<String, SourceLocation>,
    /// What was wrong.
    pub errors: Vec<ConfigError>,
}

/// Checks `root` against `schema`.
pub(super) fn shape(root: &Node, schema: &Json, env: Env<'_>) -> Shaped {
    let mut walk = Walk { definitions: schema.get("$defs"), env, places: BTreeMap::new(), errors: Vec::new() };
    let json = walk.value(root, schema, "").unwrap_or_else(|| Json::Object(Map::new()));
    Shaped { json, places: walk.places, errors: walk.errors }
}

/// `path` and a key below it.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let key = if key.chars().all(plain) && !key.is_empty() { key.to_owned() } else { format!("'{key}'") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

struct Walk<'a> {
    definitions: Option<&'a Json>,
    env: Env<'a>,
    places: BTreeMap<String, SourceLocation>,
    errors: Vec<ConfigError>,
}

impl<'a> Walk<'a> {
    fn error(&mut self, place: SourceLocation, at: &str, message: String) {
        self.errors.push(ConfigError { line: place.line, column: place.column, at: at.to_owned(), message });
    }

    /// Follows references, and takes the one alternative that is not null.
    fn follow(&self, mut schema: &'a Json) -> &'a Json {
        // Definitions never refer to themselves in a circle without a level of nesting in between; the bound only
        // keeps a mistake from hanging.
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

    /// The JSON of a node, or `None` where it is wrong (and reported) or empty.
    fn value(&mut self, node: &Node, schema: &'a Json, path: &str) -> Option<Json> {
        self.places.insert(path.to_owned(), node.place);
        let schema = self.follow(schema);
        if matches!(node.value, Value::Null) {
            return None;
        }
        if let Some(accepted) = choices(schema) {
            return self.choice(node, &accepted, path);
        }
        match kind(schema) {
            "object" => self.object(node, schema, path),
            "array" => self.array(node, schema, path),
            "string" => self.text(node, path).map(Json::String),
            "integer" => self.integer(node, schema, path),
            "boolean" => self.boolean(node, path),
            _ => None,
        }
    }

    fn mismatch(&mut self, node: &Node, path: &str, expected: &str) {
        self.error(node.place, path, format!("this is {}, and {expected} is expected", node.value.kind()));
    }

    fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => match interpolate(text, self.env) {
                Ok(text) => Some(text),
                Err(message) => {
                    self.error(node.place, path, message);
                    None
                }
            },
            Value::Bool(_, spelled) | Value::Number(_, spelled) => Some(spelled.clone()),
            _ => {
                self.mismatch(node, path, "text");
                None
            }
        }
    }

    fn choice(&mut self, node: &Node, accepted: &[&str], path: &str) -> Option<Json> {
        let text = self.text(node, path)?;
        if accepted.contains(&text.as_str()) {
            return Some(Json::String(text));
        }
        let message = format!("`{text}` is not among what is accepted here: {}", accepted.join(", "));
        self.error(node.place, path, message);
        None
    }

    fn integer(&mut self, node: &Node, schema: &Json, path: &str) -> Option<Json> {
        let number = match &node.value {
            Value::Number(number, _) => number.as_i64(),
            Value::Text(_) => self.text(node, path)?.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.mismatch(node, path, "a whole number");
            return None;
        };
        let least = schema.get("minimum").and_then(Json::as_i64).unwrap_or(i64::MIN);
        let most = schema.get("maximum").and_then(Json::as_i64).unwrap_or(i64::from(u32::MAX));
        if number < least || number > most {
            self.error(node.place, path, format!("{number} is out of range; accepted is {least} to {most}"));
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
            self.mismatch(node, path, "`true` or `false`");
        }
        value.map(Json::Bool)
    }

    fn array(&mut self, node: &Node, schema: &'a Json, path: &str) -> Option<Json> {
        let Value::List(items) = &node.value else {
            self.mismatch(node, path, "a list (`[a, b]`, or lines that begin with `- `)");
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
            self.mismatch(node, path, "a mapping (`key: value` lines)");
            return None;
        };
        let properties = schema.get("properties").and_then(Json::as_object);
        // Null stands for a value taken away in maps of free keys; in structs it is the same as a missing key.
        let free = schema.get("additionalProperties").filter(|s| s.is_object());
        let mut json = Map::new();
        for (key, place, child) in entries {
            let below = join(path, key);
            if let Some(inner) = properties.and_then(|p| p.get(key)) {
                if let Some(value) = self.value(child, inner, &below) {
                    json.insert(key.clone(), value);
                }
            } else if let Some(inner) = free {
                match self.value(child, inner, &below) {
                    Some(value) => _ = json.insert(key.clone(), value),
                    None if matches!(child.value, Value::Null) => _ = json.insert(key.clone(), Json::Null),
                    None => {}
                }
                if matches!(child.value, Value::Null) && !nullable(inner) {
                    self.error(*place, &below, "there is nothing behind this key; give a value or remove it".into());
                    json.remove(key);
                }
            } else {
                self.unknown(key, *place, &below, properties);
            }
        }
        self.missing(node, entries, schema, path);
        Some(Json::Object(json))
    }

    fn unknown(&mut self, key: &str, place: SourceLocation, below: &str, properties: Option<&Map<String, Json>>) {
        let mut accepted: Vec<&str> = properties.map(|p| p.keys().map(String::as_str).collect()).unwrap_or_default();
        accepted.sort_unstable();
        let near = accepted.iter().find(|name| is_near(name, key));
        let hint = near.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        self.error(place, below, format!("unknown key `{key}`{hint} Accepted here: {}", accepted.join(", ")));
    }

    fn missing(&mut self, node: &Node, entries: &[(String, SourceLocation, Node)], schema: &Json, path: &str) {
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
            self.error(node.place, path, format!("`{name}` is missing{about}"));
        }
    }
}

/// The accepted texts of an enumeration.
fn choices(schema: &Json) -> Option<Vec<&str>> {
    if let Some(all) = schema.get("enum").and_then(Json::as_array) {
        return Some(all.iter().filter_map(Json::as_str).collect());
    }
    let all = schema.get("oneOf").and_then(Json::as_array)?;
    let mut names = Vec::new();
    for one in all {
        if let Some(name) = one.get("const").and_then(Json::as_str) {
            names.push(name);
        } else {
            names.extend(one.get("enum")?.as_array()?.iter().filter_map(Json::as_str));
        }
    }
    Some(names)
}

fn kind(schema: &Json) -> &str {
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

/// One letter added, left out or changed, or two swapped.
fn is_near(a: &str, b: &str) -> bool {
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
