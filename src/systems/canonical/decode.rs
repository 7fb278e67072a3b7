//! The canonical alert event as JSON: `schemas/alert-event.avsc` is its reference.
//!
//! Required are only `source`, `key`, `action` (or `status`) and, for an event that opens a ticket, `title`. This short
//! form is expanded to the full form by these rules:
//!
//! | omitted or short | becomes |
//! |---|---|
//! | `schema` | `alert-lifecycle/1`; any other is rejected |
//! | `source: "x"` | `source: {system: "x"}` |
//! | `object` | `{kind: "alert", id: <key>}` |
//! | `key` | `<system>[@<instance>]:<object.kind>:<object.id>`; without an object id: the record's key |
//! | `action` | from `status`: open → open, acknowledged → acknowledge, suppressed → suppress, resolved and closed → resolve |
//! | `status` | from `action`: open, reopen, unacknowledge, unsuppress → open; acknowledge → acknowledged; suppress → suppressed; resolve, merge → resolved; else unknown |
//! | `occurred_at` | the record's timestamp (`time_kind: received`) |
//! | `severity` | `unknown`; `warning` → medium, `error` → high and the like; an unknown name → unknown |
//! | `event_id` | none, and repeated events are not detected by id; `event_id_kind: derived`: the id is not used to detect them |
//! | `episode` | the `event_id` of an event that opens a ticket; without an id, firings are not told apart |
//! | `note: "x"` | `note: {body: "x"}` |
//! | `actor: "x"` | `actor: {name: "x"}` |
//! | `resolution: "x"` | `resolution: {notes: "x"}` |
//! | `url`, `number` | `object.url`, `object.number` |
//!
//! Numbers and booleans are accepted where text is expected, so `build: 17` is a valid label; numbers keep all their
//! digits there. Unknown fields are kept and can be used in templates as `event.<name>`. Events whose `mode` is `test` or
//! `tutorial` are skipped.

use serde_json::{Map, Value};

use crate::model::alert::Resolution;
use crate::model::{Action, AlertEvent, Record};
use crate::systems::json::{body, labels, object, text, undecodable, with_exact_numbers};
use crate::systems::{DecodeError, MAX_KEY, names, time};

/// The supported schema.
const SCHEMA: &str = "alert-lifecycle/1";

/// Maximum number of characters of an event id.
const MAX_EVENT_ID: usize = 255;

pub(in crate::systems) fn decode(record: &Record) -> Result<Vec<AlertEvent>, DecodeError> {
    let body = body(record)?;
    if let Some(schema) = text(&body, "schema", "$")?.filter(|schema| schema != SCHEMA) {
        return Err(undecodable("$.schema", format!("unknown schema `{schema}`; use `{SCHEMA}`, or omit it")));
    }
    if matches!(text(&body, "mode", "$")?.as_deref(), Some("test" | "tutorial")) {
        return Ok(Vec::new());
    }
    let mut event = AlertEvent::default();
    let exact = with_exact_numbers(record);
    let exact = exact.as_ref().unwrap_or(&body);
    identity(exact, record, &mut event)?;
    lifecycle(&body, &mut event)?;
    let occurred_at = time::time_field(&body, "occurred_at", "$")?;
    event.occurred_at = occurred_at.or(record.timestamp).unwrap_or(0);
    content(exact, &mut event)?;
    check_required(&event)?;
    event.json = canonical_json(body, &event, occurred_at.is_some());
    Ok(vec![event])
}

/// Reads source, object, key and event id.
fn identity(body: &Map<String, Value>, record: &Record, event: &mut AlertEvent) -> Result<(), DecodeError> {
    let system = match body.get("source") {
        Some(Value::Object(source)) => {
            event.instance = text(source, "instance", "$.source")?;
            text(source, "system", "$.source")?
        }
        _ => text(body, "source", "$")?,
    };
    event.system = system.ok_or_else(|| {
        undecodable(
            "$.source",
            "missing; set the system that raised the alert, such as `\"source\": \"backup\"`".into(),
        )
    })?;
    let none = Map::new();
    let about = object(body, "object", "$")?.unwrap_or(&none);
    event.kind = text(about, "kind", "$.object")?.unwrap_or_else(|| "alert".into());
    let id = text(about, "id", "$.object")?;
    event.number = text(about, "number", "$.object")?.or(text(body, "number", "$")?);
    event.url = text(about, "url", "$.object")?.or(text(body, "url", "$")?);
    event.key = match (text(body, "key", "$")?, &id) {
        (Some(key), _) => key,
        (None, Some(id)) => {
            let instance = event.instance.as_ref().map(|i| format!("@{i}")).unwrap_or_default();
            format!("{}{instance}:{}:{id}", event.system, event.kind)
        }
        (None, None) => key_of_record(record)?,
    };
    if event.key.len() > MAX_KEY || event.key.chars().any(char::is_control) {
        let message = format!("the key of an alert must have at most {MAX_KEY} bytes and no control characters");
        return Err(DecodeError { code: "invalid_key", path: "$.key".into(), message });
    }
    event.object_id = id.unwrap_or_else(|| event.key.clone());
    if let Some(id) = text(body, "event_id", "$")? {
        if id.chars().count() > MAX_EVENT_ID {
            return Err(undecodable("$.event_id", format!("longer than {MAX_EVENT_ID} characters; use a shorter id")));
        }
        event.event_id_native = text(body, "event_id_kind", "$")?.as_deref() != Some("derived");
        event.event_id = id;
    }
    let own_id = || (event.event_id_native && !event.event_id.is_empty()).then(|| event.event_id.clone());
    event.episode = text(body, "episode", "$")?.or_else(own_id);
    Ok(())
}

fn key_of_record(record: &Record) -> Result<String, DecodeError> {
    let text = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).filter(|key| !key.trim().is_empty());
    text.map(str::to_owned).ok_or_else(|| DecodeError {
        code: "missing_key",
        path: "$.key".into(),
        message: "missing, as is `object.id`, and the record has no UTF-8 key; set one of them".into(),
    })
}

fn lifecycle(body: &Map<String, Value>, event: &mut AlertEvent) -> Result<(), DecodeError> {
    let unknown = |path: &str, message| Err(DecodeError { code: "unknown_action", path: path.to_owned(), message });
    let known = || names::ACTIONS.map(|(name, _)| name).join(", ");
    let status = text(body, "status", "$")?.map(|status| status.trim().to_ascii_lowercase());
    if let Some(status) = &status
        && !names::STATUSES.contains(&status.as_str())
    {
        return unknown("$.status", format!("unknown status `{status}`; use one of: {}", names::STATUSES.join(", ")));
    }
    let action = match text(body, "action", "$")? {
        Some(name) => match names::action(&name) {
            Some(action) => action,
            None => return unknown("$.action", format!("unknown action `{name}`; use one of: {}", known())),
        },
        None => match status.as_deref().and_then(names::action_from_status) {
            Some(action) => action,
            None => {
                let message = format!("missing, and no `status` implies an action; use one of: {}", known());
                return unknown("$.action", message);
            }
        },
    };
    event.action = Some(action);
    event.status = status.unwrap_or_else(|| names::status_after(action).to_owned());
    Ok(())
}

fn content(body: &Map<String, Value>, event: &mut AlertEvent) -> Result<(), DecodeError> {
    event.title = text(body, "title", "$")?;
    event.description = text(body, "description", "$")?;
    event.severity = Some(names::severity(&text(body, "severity", "$")?.unwrap_or_default()).to_owned());
    event.priority = text(body, "priority", "$")?;
    event.labels = labels(body, "labels", "$")?;
    event.actor = match body.get("actor") {
        Some(Value::Object(actor)) => actor_name(actor, "$.actor")?,
        _ => text(body, "actor", "$")?,
    };
    match body.get("note") {
        Some(Value::Object(note)) => {
            event.note = text(note, "body", "$.note")?;
            let author = match note.get("author") {
                Some(Value::Object(author)) => actor_name(author, "$.note.author")?,
                _ => text(note, "author", "$.note")?,
            };
            event.actor = author.or_else(|| event.actor.take());
        }
        _ => event.note = text(body, "note", "$")?,
    }
    event.resolution = match body.get("resolution") {
        Some(Value::Object(resolution)) => Some(Resolution {
            reason: text(resolution, "reason", "$.resolution")?,
            code: text(resolution, "code", "$.resolution")?,
            notes: text(resolution, "notes", "$.resolution")?,
        }),
        _ => text(body, "resolution", "$")?.map(|notes| Resolution { notes: Some(notes), ..Resolution::default() }),
    };
    Ok(())
}

/// Returns the name, e-mail address or id of a user, in that order.
fn actor_name(user: &Map<String, Value>, path: &str) -> Result<Option<String>, DecodeError> {
    Ok(match text(user, "name", path)? {
        Some(name) => Some(name),
        None => text(user, "email", path)?.or(text(user, "id", path)?),
    })
}

/// Checks the fields that the action requires.
fn check_required(event: &AlertEvent) -> Result<(), DecodeError> {
    let Some(action) = event.action else { return Ok(()) };
    if action.opens() && event.title.is_none() {
        return Err(undecodable("$.title", "missing; an event that can open a ticket needs a title".into()));
    }
    if action == Action::Note && event.note.is_none() {
        return Err(undecodable("$.note", "missing; set the text of the note".into()));
    }
    Ok(())
}

/// Returns the event in its full form, with unknown fields.
fn canonical_json(mut body: Map<String, Value>, event: &AlertEvent, has_event_time: bool) -> Value {
    fn take_object(body: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
        match body.remove(key) {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }
    fn insert_text(object: &mut Map<String, Value>, key: &str, value: Option<&String>) {
        if let Some(value) = value {
            object.insert(key.to_owned(), Value::String(value.clone()));
        }
    }
    let mut source = take_object(&mut body, "source");
    insert_text(&mut source, "system", Some(&event.system));
    insert_text(&mut source, "instance", event.instance.as_ref());
    let mut about = take_object(&mut body, "object");
    insert_text(&mut about, "kind", Some(&event.kind));
    insert_text(&mut about, "id", Some(&event.object_id));
    insert_text(&mut about, "number", event.number.as_ref());
    insert_text(&mut about, "url", event.url.as_ref());
    let labels = event.labels.iter().map(|(name, label)| (name.clone(), Value::String(label.clone()))).collect();
    let mut text = |key: &str, value: &str| body.insert(key.to_owned(), Value::String(value.to_owned()));
    text("schema", SCHEMA);
    text("key", &event.key);
    text("action", event.action.map_or("", names::action_name));
    text("status", &event.status);
    text("severity", event.severity.as_deref().unwrap_or("unknown"));
    text("occurred_at", &time::format_rfc3339(event.occurred_at));
    text("time_kind", if has_event_time { "event" } else { "received" });
    body.insert("source".into(), Value::Object(source));
    body.insert("object".into(), Value::Object(about));
    body.insert("labels".into(), Value::Object(labels));
    if let Some(Value::String(name)) = body.get("actor") {
        let actor = Map::from_iter([("name".to_owned(), Value::String(name.clone()))]);
        body.insert("actor".into(), Value::Object(actor));
    }
    if let Some(Value::String(notes)) = body.get("resolution") {
        let resolution = Map::from_iter([("notes".to_owned(), Value::String(notes.clone()))]);
        body.insert("resolution".into(), Value::Object(resolution));
    }
    if let Some(body_of_note) = &event.note {
        let mut note = take_object(&mut body, "note");
        insert_text(&mut note, "body", Some(body_of_note));
        body.insert("note".into(), Value::Object(note));
    }
    Value::Object(body)
}
