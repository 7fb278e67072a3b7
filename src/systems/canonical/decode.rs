//! The canonical alert event as JSON: `schemas/alert-event.avsc` is its reference.
//!
//! The least a person may publish is `source`, `key`, `action` (or `status`) and, for an event that opens a ticket,
//! `title`. This short form expands to the full one by these rules:
//!
//! | left out or short | becomes |
//! |---|---|
//! | `schema` | `alert-lifecycle/1`; any other is refused |
//! | `source: "x"` | `source: {system: "x"}` |
//! | `object` | `{kind: "alert", id: <key>}` |
//! | `key` | `<system>[@<instance>]:<object.kind>:<object.id>`; without an object id: the record's key |
//! | `action` | from `status`: open → open, acknowledged → acknowledge, suppressed → suppress, resolved and closed → resolve |
//! | `status` | from `action`: open, reopen, unacknowledge, unsuppress → open; acknowledge → acknowledged; suppress → suppressed; resolve, merge → resolved; else unknown |
//! | `occurred_at` | the record's timestamp (`time_kind: received`) |
//! | `severity` | `unknown`; `warning` → medium, `error` → high and the like; a word nobody knows → unknown |
//! | `event_id` | none, and repetition is not recognised by id; `event_id_kind: derived` says that an id tells nothing |
//! | `note: "x"` | `note: {body: "x"}` |
//! | `actor: "x"` | `actor: {name: "x"}` |
//! | `resolution: "x"` | `resolution: {notes: "x"}` |
//! | `url`, `number` | `object.url`, `object.number` |
//!
//! Numbers and booleans are taken as text where text is expected, so `build: 17` is a good label. Unknown fields are
//! kept and may be used in templates as `event.<name>`. Events whose `mode` is `test` or `tutorial` are left out.

use serde_json::{Map, Value};

use crate::model::alert::Resolution;
use crate::model::{Action, AlertEvent, Record};
use crate::systems::json::{body, labels, object, text, wrong};
use crate::systems::{DecodeError, MAX_KEY, time, words};

/// The schema that is understood.
const SCHEMA: &str = "alert-lifecycle/1";

/// Longest event id.
const MAX_EVENT_ID: usize = 255;

pub(in crate::systems) fn decode(record: &Record) -> Result<Vec<AlertEvent>, DecodeError> {
    let body = body(record)?;
    if let Some(schema) = text(&body, "schema", "$")?.filter(|schema| schema != SCHEMA) {
        return Err(wrong("$.schema", format!("`{schema}` is not known here; publish `{SCHEMA}`, or leave it out")));
    }
    if matches!(text(&body, "mode", "$")?.as_deref(), Some("test" | "tutorial")) {
        return Ok(Vec::new());
    }
    let mut event = AlertEvent::default();
    identity(&body, record, &mut event)?;
    lifecycle(&body, &mut event)?;
    let occurred_at = time::rfc3339(&body, "occurred_at", "$")?;
    event.occurred_at = occurred_at.or(record.timestamp).unwrap_or(0);
    content(&body, &mut event)?;
    required(&event)?;
    event.json = full(body, &event, occurred_at.is_some());
    Ok(vec![event])
}

/// Source, object, key and event id.
fn identity(body: &Map<String, Value>, record: &Record, event: &mut AlertEvent) -> Result<(), DecodeError> {
    let system = match body.get("source") {
        Some(Value::Object(source)) => {
            event.instance = text(source, "instance", "$.source")?;
            text(source, "system", "$.source")?
        }
        _ => text(body, "source", "$")?,
    };
    event.system = system.ok_or_else(|| {
        wrong(
            "$.source",
            "it is missing; name the system that raised the alert, such as `\"source\": \"backup\"`".into(),
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
        let message =
            format!("an alert's key has at most {MAX_KEY} bytes and no control characters; publish a shorter one");
        return Err(DecodeError { code: "invalid_key", at: "$.key".into(), message });
    }
    event.object_id = id.unwrap_or_else(|| event.key.clone());
    if let Some(id) = text(body, "event_id", "$")? {
        if id.chars().count() > MAX_EVENT_ID {
            return Err(wrong(
                "$.event_id",
                format!("it is longer than {MAX_EVENT_ID} characters; publish a shorter one"),
            ));
        }
        event.event_id_native = text(body, "event_id_kind", "$")?.as_deref() != Some("derived");
        event.event_id = id;
    }
    Ok(())
}

fn key_of_record(record: &Record) -> Result<String, DecodeError> {
    let text = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).filter(|key| !key.trim().is_empty());
    text.map(str::to_owned).ok_or_else(|| DecodeError {
        code: "missing_key",
        at: "$.key".into(),
        message: "there is no `key`, no `object.id`, and the record has no key in UTF-8; say which alert this is"
            .into(),
    })
}

fn lifecycle(body: &Map<String, Value>, event: &mut AlertEvent) -> Result<(), DecodeError> {
    let unknown = |at: &str, message| Err(DecodeError { code: "unknown_action", at: at.to_owned(), message });
    let known = || words::ACTIONS.map(|(name, _)| name).join(", ");
    let status = text(body, "status", "$")?.map(|status| status.trim().to_ascii_lowercase());
    if let Some(status) = &status
        && !words::STATUSES.contains(&status.as_str())
    {
        return unknown("$.status", format!("`{status}` is no status; publish one of: {}", words::STATUSES.join(", ")));
    }
    let action = match text(body, "action", "$")? {
        Some(name) => match words::action(&name) {
            Some(action) => action,
            None => return unknown("$.action", format!("`{name}` is no action; publish one of: {}", known())),
        },
        None => match status.as_deref().and_then(words::action_of_status) {
            Some(action) => action,
            None => {
                let message =
                    format!("there is no action, and no status that stands for one; publish one of: {}", known());
                return unknown("$.action", message);
            }
        },
    };
    event.action = Some(action);
    event.status = status.unwrap_or_else(|| words::status_of_action(action).to_owned());
    Ok(())
}

fn content(body: &Map<String, Value>, event: &mut AlertEvent) -> Result<(), DecodeError> {
    event.title = text(body, "title", "$")?;
    event.description = text(body, "description", "$")?;
    event.severity = Some(words::severity(&text(body, "severity", "$")?.unwrap_or_default()).to_owned());
    event.priority = text(body, "priority", "$")?;
    event.labels = labels(body, "labels", "$")?;
    event.actor = match body.get("actor") {
        Some(Value::Object(actor)) => person(actor, "$.actor")?,
        _ => text(body, "actor", "$")?,
    };
    match body.get("note") {
        Some(Value::Object(note)) => {
            event.note = text(note, "body", "$.note")?;
            let author = match note.get("author") {
                Some(Value::Object(author)) => person(author, "$.note.author")?,
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

/// Name, e-mail or id of a person, in that order.
fn person(of: &Map<String, Value>, at: &str) -> Result<Option<String>, DecodeError> {
    Ok(match text(of, "name", at)? {
        Some(name) => Some(name),
        None => text(of, "email", at)?.or(text(of, "id", at)?),
    })
}

/// What an action can't do without.
fn required(event: &AlertEvent) -> Result<(), DecodeError> {
    let Some(action) = event.action else { return Ok(()) };
    if action.opens() && event.title.is_none() {
        return Err(wrong(
            "$.title",
            "it is missing; an event that may open a ticket needs one line for people".into(),
        ));
    }
    if action == Action::Note && event.note.is_none() {
        return Err(wrong("$.note", "it is missing; give the text of the note".into()));
    }
    Ok(())
}

/// The event in its full form, unknown fields kept.
fn full(mut body: Map<String, Value>, event: &AlertEvent, native_time: bool) -> Value {
    fn part(body: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
        match body.remove(key) {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }
    fn put(object: &mut Map<String, Value>, key: &str, value: Option<&String>) {
        if let Some(value) = value {
            object.insert(key.to_owned(), Value::String(value.clone()));
        }
    }
    let mut source = part(&mut body, "source");
    put(&mut source, "system", Some(&event.system));
    put(&mut source, "instance", event.instance.as_ref());
    let mut about = part(&mut body, "object");
    put(&mut about, "kind", Some(&event.kind));
    put(&mut about, "id", Some(&event.object_id));
    put(&mut about, "number", event.number.as_ref());
    put(&mut about, "url", event.url.as_ref());
    let labels = event.labels.iter().map(|(name, label)| (name.clone(), Value::String(label.clone()))).collect();
    let mut text = |key: &str, value: &str| body.insert(key.to_owned(), Value::String(value.to_owned()));
    text("schema", SCHEMA);
    text("key", &event.key);
    text("action", event.action.map_or("", words::action_name));
    text("status", &event.status);
    text("severity", event.severity.as_deref().unwrap_or("unknown"));
    text("occurred_at", &time::show(event.occurred_at));
    text("time_kind", if native_time { "event" } else { "received" });
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
        let mut note = part(&mut body, "note");
        put(&mut note, "body", Some(body_of_note));
        body.insert("note".into(), Value::Object(note));
    }
    Value::Object(body)
}
