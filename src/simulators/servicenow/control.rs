//! The control endpoints under `/simulator/`. The parent module documents them.

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::columns::ColumnType;
use super::database::Database;
use super::faults::Faults;
use super::instance::{Instance, lock};
use super::reply::Reply;
use super::rules::WriteError;
use super::schema::sys;
use super::table_api::decode_form;
use super::table_storage::{Row, collation_key, hex, parse_sys_id};
use super::time;
use super::write::{Op, Write, execute};
use super::write_log::{LogEntry, Via};

/// Handles a request to `/simulator/...`.
pub(super) fn handle(instance: &Instance, method: &Method, path: &str, query: &str, body: &[u8]) -> Reply {
    let params = decode_form(query);
    let get = |name: &str| params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let count = |name: &str, default: usize| get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let ok = |value: &Value| Reply::json(200, value.to_string().into_bytes());
    match (method.as_str(), path) {
        ("GET", "/simulator/state") => ok(&instance.state()),
        ("GET", "/simulator/faults") => ok(&json!(&*instance.faults())),
        ("POST" | "PATCH", "/simulator/faults") => {
            match parse(body).and_then(|changes| instance.change_faults(&changes)) {
                Ok(faults) => ok(&faults),
                Err(error) => error_reply(400, &error),
            }
        }
        ("DELETE", "/simulator/faults") => {
            instance.set_faults(Faults::default());
            ok(&json!(&*instance.faults()))
        }
        ("POST", "/simulator/user_edits") => match parse(body).and_then(|edit| edit_as_user(instance, &edit)) {
            Ok(row) => ok(&row),
            Err(error) if error == NO_ROW => error_reply(404, &error),
            Err(error) => error_reply(409, &error),
        },
        ("GET", "/simulator/rows") => {
            let table = get("table").unwrap_or("incident");
            let filter = RowFilter { sys_id: get("sys_id"), correlation_id: get("correlation_id") };
            match rows(instance, table, &filter, count("offset", 0), count("limit", 1_000)) {
                Some(rows) => ok(&rows),
                None => error_reply(404, &format!("there is no table {table}")),
            }
        }
        ("GET", "/simulator/log") => {
            let after = get("after").and_then(|text| text.parse().ok()).unwrap_or(0);
            ok(&log(instance, after, count("limit", 1_000)))
        }
        ("GET", "/simulator/history") => ok(&history(instance, get("sys_id").unwrap_or(""))),
        ("POST", "/simulator/accounts") => match parse(body) {
            Ok(changes) => ok(&accounts(instance, &changes)),
            Err(error) => error_reply(400, &error),
        },
        _ => error_reply(404, "the simulator has no such control endpoint"),
    }
}

fn error_reply(status: u16, text: &str) -> Reply {
    Reply::json(status, json!({"simulator_error": text}).to_string().into_bytes())
}

fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))
}

fn accounts(instance: &Instance, changes: &Value) -> Value {
    if let Some(name) = changes.get("unlock").and_then(Value::as_str) {
        lock(&instance.auth).unlock(name);
    }
    if changes.get("revoke_tokens") == Some(&Value::Bool(true)) {
        lock(&instance.auth).revoke();
    }
    if changes.get("end_sessions") == Some(&Value::Bool(true)) {
        lock(&instance.sessions).clear();
    }
    json!({"done": true})
}

/// An edit of a row by a user: the body of `POST /simulator/user_edits`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEdit {
    #[serde(default = "default_table")]
    table: String,
    sys_id: Option<String>,
    number: Option<String>,
    correlation_id: Option<String>,
    #[serde(default = "default_user")]
    user: String,
    #[serde(default)]
    set: Map<String, Value>,
    work_notes: Option<String>,
    comments: Option<String>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    create: bool,
    /// The values are display values, such as labels of choices.
    #[serde(default)]
    input_display_value: bool,
}

fn default_table() -> String {
    "incident".into()
}

fn default_user() -> String {
    "beth.anglin".into()
}

const NO_ROW: &str = "there is no such row";

/// Executes an edit as a user. Returns the row after the edit.
pub(super) fn edit_as_user(instance: &Instance, edit: &Value) -> Result<Value, String> {
    let edit = UserEdit::deserialize(edit).map_err(|error| error.to_string())?;
    let faults = instance.faults();
    let mut database = lock(&instance.database);
    let table = database.schema.table(&edit.table).ok_or_else(|| format!("there is no table {}", edit.table))?;
    let mut fields: Vec<(String, String)> =
        edit.set.iter().map(|(name, value)| (name.clone(), value_text(value))).collect();
    let notes = [("work_notes", &edit.work_notes), ("comments", &edit.comments)];
    fields.extend(notes.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?))));
    let op = if edit.create {
        if let Some(correlation_id) = &edit.correlation_id {
            fields.push(("correlation_id".into(), correlation_id.clone()));
        }
        Op::Insert
    } else {
        let id = locate(&database, table, &edit).ok_or_else(|| NO_ROW.to_owned())?;
        if edit.delete { Op::Delete(id) } else { Op::Update(id) }
    };
    for (name, value) in &mut fields {
        // References to users may also be user names.
        let store = database.schema.tables[table].store;
        let to_user = database
            .schema
            .column(table, name)
            .is_some_and(|col| database.schema.column_at(store, col).kind == ColumnType::Reference("sys_user"));
        if let Some(account) = lock(&instance.auth).account(value).filter(|_| to_user) {
            *value = hex(super::database::sys_id_of("sys_user", &account.user.name));
        }
    }
    let actor = database.actors.id(&edit.user);
    let write = Write {
        op,
        method: "user",
        table,
        fields,
        actor,
        admin: true,
        via: Via::User,
        zone: jiff::tz::TimeZone::UTC,
        input_display_value: edit.input_display_value,
        suppress_auto_sys_fields: false,
        visibility_delay_ms: lock(&instance.fault_injector).visibility_delay(&faults),
    };
    match execute(&mut database, &write, &faults, &instance.options.settings) {
        Ok(Some(at)) => {
            let row = database.stores[database.schema.tables[table].store].get(at);
            Ok(row.map_or(Value::Null, |row| row_json(&database, row)))
        }
        Ok(None) => Ok(json!({"deleted": true})),
        Err(WriteError::NoRecord) => Err(NO_ROW.into()),
        Err(error) => Err(error.detail()),
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn locate(database: &Database, table: usize, edit: &UserEdit) -> Option<u128> {
    if let Some(sys_id) = &edit.sys_id {
        return parse_sys_id(sys_id).filter(|id| database.locate(table, *id).is_some());
    }
    let (name, value) = match (&edit.number, &edit.correlation_id) {
        (Some(number), _) => ("number", number),
        (None, Some(id)) => ("correlation_id", id),
        (None, None) => return None,
    };
    let col = database.schema.column(table, name)?;
    let store = &database.stores[database.schema.tables[table].store];
    let found = store.equal(col, &collation_key(value)).iter().rev().filter_map(|at| store.get(*at));
    found.filter(|row| database.schema.is_a(row.table, table)).map(|row| row.sys_id).next()
}

/// Selects rows of a table. Without a value: all rows.
#[derive(Default)]
pub(super) struct RowFilter<'a> {
    pub sys_id: Option<&'a str>,
    pub correlation_id: Option<&'a str>,
}

/// Returns rows with raw values and journals, in order of creation; `None` if there is no such table.
pub(super) fn rows(instance: &Instance, table: &str, filter: &RowFilter, offset: usize, limit: usize) -> Option<Value> {
    let database = lock(&instance.database);
    let table = database.schema.table(table)?;
    let store = &database.stores[database.schema.tables[table].store];
    let correlation = database.schema.column(table, "correlation_id").filter(|col| store.is_indexed(*col));
    let all: Box<dyn Iterator<Item = &Row>> = match (filter.sys_id, filter.correlation_id, correlation) {
        (Some(id), _, _) => Box::new(parse_sys_id(id).and_then(|id| store.row(id)).into_iter()),
        (None, Some(id), Some(col)) => {
            Box::new(store.equal(col, &collation_key(id)).iter().filter_map(|at| store.get(*at)))
        }
        (None, Some(_), None) => Box::new(std::iter::empty()),
        (None, None, _) => Box::new(store.all().map(|(_, row)| row)),
    };
    let mut total = 0;
    let mut list = Vec::new();
    for row in all.filter(|row| database.schema.is_a(row.table, table)) {
        if total >= offset && list.len() < limit {
            list.push(row_json(&database, row));
        }
        total += 1;
    }
    Some(json!({"total": total, "rows": list}))
}

/// Returns a row's raw values and its journal, oldest entry first.
fn row_json(database: &Database, row: &Row) -> Value {
    let store = database.schema.tables[row.table].store;
    let mut out = Map::new();
    for col in &database.schema.tables[row.table].columns {
        let column = database.schema.column_at(store, *col);
        if column.kind != ColumnType::Journal {
            out.insert(column.name.to_string(), database.raw(row, *col).into());
        }
    }
    if store == database.schema.task_store {
        let at = |name: &str| database.schema.column(database.schema.journal_table, name).unwrap_or(sys::ID);
        let (element, value) = (at("element"), at("value"));
        let journal: Vec<Value> = database
            .journal_entries(row.sys_id)
            .map(|entry| {
                json!({
                    "sys_id": hex(entry.sys_id),
                    "element": database.raw(entry, element),
                    "value": database.raw(entry, value),
                    "created_by": database.actors.name(entry.created_by),
                    "created_on": time::format(entry.created),
                })
            })
            .collect();
        let state = super::render::display(database, store, row, database.schema.task.state, &jiff::tz::TimeZone::UTC);
        let assigned =
            super::render::display(database, store, row, database.schema.task.assigned_to, &jiff::tz::TimeZone::UTC);
        out.insert("journal".into(), journal.into());
        out.insert("state_label".into(), state.into());
        out.insert("assigned_to_name".into(), assigned.into());
    }
    Value::Object(out)
}

/// Returns the writes after a sequence number.
pub(super) fn log(instance: &Instance, after: u64, limit: usize) -> Value {
    let database = lock(&instance.database);
    let from = usize::try_from(after).unwrap_or(usize::MAX).min(database.log.len());
    let entries: Vec<Value> = database.log.iter().skip(from).take(limit).map(LogEntry::to_json).collect();
    json!({"length": database.log.len(), "entries": entries})
}

/// Returns the writes of one row.
pub(super) fn history(instance: &Instance, sys_id: &str) -> Value {
    let database = lock(&instance.database);
    let id = parse_sys_id(sys_id);
    let entries: Vec<Value> =
        database.log.iter().filter(|entry| id.is_some() && entry.sys_id == id).map(LogEntry::to_json).collect();
    json!({"entries": entries})
}
