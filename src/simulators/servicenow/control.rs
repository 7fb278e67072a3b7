//! The control endpoints under `/simulator/`; the module above documents them.

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::columns::Kind;
use super::faults::Faults;
use super::history::{Logged, Via};
use super::instance::{Instance, lock};
use super::reply::Reply;
use super::rules::Refusal;
use super::schema::sys;
use super::storage::{Row, fold, hex, parse_sys_id};
use super::table_api::decode_form;
use super::time;
use super::world::World;
use super::write::{Op, Write, execute};

/// Answers a request to `/simulator/...`.
pub(super) fn answer(instance: &Instance, method: &Method, path: &str, query: &str, body: &[u8]) -> Reply {
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
                Err(error) => wrong(400, &error),
            }
        }
        ("DELETE", "/simulator/faults") => {
            instance.set_faults(Faults::default());
            ok(&json!(&*instance.faults()))
        }
        ("POST", "/simulator/people") => match parse(body).and_then(|act| person(instance, &act)) {
            Ok(row) => ok(&row),
            Err(error) if error == NO_ROW => wrong(404, &error),
            Err(error) => wrong(409, &error),
        },
        ("GET", "/simulator/rows") => {
            let table = get("table").unwrap_or("incident");
            let pick = Pick { sys_id: get("sys_id"), correlation_id: get("correlation_id") };
            match rows(instance, table, &pick, count("offset", 0), count("limit", 1_000)) {
                Some(rows) => ok(&rows),
                None => wrong(404, &format!("there is no table {table}")),
            }
        }
        ("GET", "/simulator/log") => {
            let after = get("after").and_then(|text| text.parse().ok()).unwrap_or(0);
            ok(&log(instance, after, count("limit", 1_000)))
        }
        ("GET", "/simulator/history") => ok(&history(instance, get("sys_id").unwrap_or(""))),
        ("POST", "/simulator/accounts") => match parse(body) {
            Ok(act) => ok(&accounts(instance, &act)),
            Err(error) => wrong(400, &error),
        },
        _ => wrong(404, "the simulator has no such control endpoint"),
    }
}

fn wrong(status: u16, text: &str) -> Reply {
    Reply::json(status, json!({"simulator_error": text}).to_string().into_bytes())
}

fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))
}

fn accounts(instance: &Instance, act: &Value) -> Value {
    if let Some(name) = act.get("unlock").and_then(Value::as_str) {
        lock(&instance.auth).unlock(name);
    }
    if act.get("revoke_tokens") == Some(&Value::Bool(true)) {
        lock(&instance.auth).revoke();
    }
    if act.get("end_sessions") == Some(&Value::Bool(true)) {
        lock(&instance.sessions).clear();
    }
    json!({"done": true})
}

/// What a person does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    #[serde(default = "incident")]
    table: String,
    sys_id: Option<String>,
    number: Option<String>,
    correlation_id: Option<String>,
    #[serde(default = "someone")]
    user: String,
    #[serde(default)]
    set: Map<String, Value>,
    work_notes: Option<String>,
    comments: Option<String>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    create: bool,
    /// Values are labels and display values.
    #[serde(default)]
    by_label: bool,
}

fn incident() -> String {
    "incident".into()
}

fn someone() -> String {
    "beth.anglin".into()
}

const NO_ROW: &str = "there is no such row";

/// Acts as a person; the row afterwards.
pub(super) fn person(instance: &Instance, act: &Value) -> Result<Value, String> {
    let act = Act::deserialize(act).map_err(|error| error.to_string())?;
    let faults = instance.faults();
    let mut world = lock(&instance.world);
    let table = world.schema.table(&act.table).ok_or_else(|| format!("there is no table {}", act.table))?;
    let mut fields: Vec<(String, String)> = act.set.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    let notes = [("work_notes", &act.work_notes), ("comments", &act.comments)];
    fields.extend(notes.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?))));
    let op = if act.create {
        if let Some(correlation_id) = &act.correlation_id {
            fields.push(("correlation_id".into(), correlation_id.clone()));
        }
        Op::Insert
    } else {
        let id = locate(&world, table, &act).ok_or_else(|| NO_ROW.to_owned())?;
        if act.delete { Op::Delete(id) } else { Op::Update(id) }
    };
    for (name, value) in &mut fields {
        // People may be given by their user name as well.
        let store = world.schema.tables[table].store;
        let to_user = world
            .schema
            .column(table, name)
            .is_some_and(|col| world.schema.def(store, col).kind == Kind::Reference("sys_user"));
        if let Some(account) = lock(&instance.auth).account(value).filter(|_| to_user) {
            *value = hex(super::world::sys_id_of("sys_user", &account.user.name));
        }
    }
    let actor = world.actors.id(&act.user);
    let write = Write {
        op,
        method: "person",
        table,
        fields,
        actor,
        admin: true,
        via: Via::Person,
        zone: jiff::tz::TimeZone::UTC,
        by_label: act.by_label,
        keeps_stamps: false,
        late_ms: lock(&instance.strikes).late(&faults),
    };
    match execute(&mut world, &write, &faults, &instance.options.switches) {
        Ok(Some(at)) => {
            let row = world.stores[world.schema.tables[table].store].get(at);
            Ok(row.map_or(Value::Null, |row| row_json(&world, row)))
        }
        Ok(None) => Ok(json!({"deleted": true})),
        Err(Refusal::NoRecord) => Err(NO_ROW.into()),
        Err(refusal) => Err(refusal.detail()),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn locate(world: &World, table: usize, act: &Act) -> Option<u128> {
    if let Some(sys_id) = &act.sys_id {
        return parse_sys_id(sys_id).filter(|id| world.locate(table, *id).is_some());
    }
    let (name, value) = match (&act.number, &act.correlation_id) {
        (Some(number), _) => ("number", number),
        (None, Some(id)) => ("correlation_id", id),
        (None, None) => return None,
    };
    let col = world.schema.column(table, name)?;
    let store = &world.stores[world.schema.tables[table].store];
    let found = store.equal(col, &fold(value)).iter().rev().filter_map(|at| store.get(*at));
    found.filter(|row| world.schema.is_a(row.table, table)).map(|row| row.sys_id).next()
}

/// Which rows of a table are wanted.
#[derive(Default)]
pub(super) struct Pick<'a> {
    pub sys_id: Option<&'a str>,
    pub correlation_id: Option<&'a str>,
}

/// Rows with raw values and journals, in order of creation; none if there is no such table.
pub(super) fn rows(instance: &Instance, table: &str, pick: &Pick, offset: usize, limit: usize) -> Option<Value> {
    let world = lock(&instance.world);
    let table = world.schema.table(table)?;
    let store = &world.stores[world.schema.tables[table].store];
    let correlation = world.schema.column(table, "correlation_id").filter(|col| store.is_indexed(*col));
    let all: Box<dyn Iterator<Item = &Row>> = match (pick.sys_id, pick.correlation_id, correlation) {
        (Some(id), _, _) => Box::new(parse_sys_id(id).and_then(|id| store.row(id)).into_iter()),
        (None, Some(id), Some(col)) => Box::new(store.equal(col, &fold(id)).iter().filter_map(|at| store.get(*at))),
        (None, Some(_), None) => Box::new(std::iter::empty()),
        (None, None, _) => Box::new(store.all().map(|(_, row)| row)),
    };
    let mut total = 0;
    let mut list = Vec::new();
    for row in all.filter(|row| world.schema.is_a(row.table, table)) {
        if total >= offset && list.len() < limit {
            list.push(row_json(&world, row));
        }
        total += 1;
    }
    Some(json!({"total": total, "rows": list}))
}

/// All raw values and the journal, oldest entry first.
fn row_json(world: &World, row: &Row) -> Value {
    let store = world.schema.tables[row.table].store;
    let mut out = Map::new();
    for col in &world.schema.tables[row.table].columns {
        let column = world.schema.def(store, *col);
        if column.kind != Kind::Journal {
            out.insert(column.name.to_string(), world.raw(row, *col).into());
        }
    }
    if store == world.schema.task_store {
        let at = |name: &str| world.schema.column(world.schema.journal_table, name).unwrap_or(sys::ID);
        let (element, value) = (at("element"), at("value"));
        let journal: Vec<Value> = world
            .journal_of(row.sys_id)
            .map(|entry| {
                json!({
                    "sys_id": hex(entry.sys_id),
                    "element": world.raw(entry, element),
                    "value": world.raw(entry, value),
                    "by": world.actors.name(entry.created_by),
                    "at": time::format(entry.created),
                })
            })
            .collect();
        let state = super::render::display(world, store, row, world.schema.task.state, &jiff::tz::TimeZone::UTC);
        let assigned =
            super::render::display(world, store, row, world.schema.task.assigned_to, &jiff::tz::TimeZone::UTC);
        out.insert("journal".into(), journal.into());
        out.insert("state_label".into(), state.into());
        out.insert("assigned_to_name".into(), assigned.into());
    }
    Value::Object(out)
}

/// Writes after a sequence number.
pub(super) fn log(instance: &Instance, after: u64, limit: usize) -> Value {
    let world = lock(&instance.world);
    let from = usize::try_from(after).unwrap_or(usize::MAX).min(world.log.len());
    let entries: Vec<Value> = world.log.iter().skip(from).take(limit).map(Logged::to_json).collect();
    json!({"length": world.log.len(), "entries": entries})
}

/// Writes of one row.
pub(super) fn history(instance: &Instance, sys_id: &str) -> Value {
    let world = lock(&instance.world);
    let id = parse_sys_id(sys_id);
    let entries: Vec<Value> =
        world.log.iter().filter(|entry| id.is_some() && entry.sys_id == id).map(Logged::to_json).collect();
    json!({"entries": entries})
}
