//! Execution of a write: converts the sent values, runs the rules, stores the row and logs the write.
//!
//! The silent effects of a real instance are here: unknown columns and choices are ignored, text is cut to the column's
//! length, a reference accepts any text, and a write that changes no value leaves the row as it is.

use jiff::tz::TimeZone;

use super::columns::ColumnType;
use super::database::Database;
use super::faults::Faults;
use super::options::Settings;
use super::rules::{self, Change, WriteError};
use super::schema::{Col, sys};
use super::table_storage::{DelayedVersion, Row, collation_key, hex, parse_sys_id, set};
use super::time;
use super::write_log::{LogEntry, Via};

/// The operation of a write, with the row's sys_id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    Update(u128),
    Delete(u128),
}

/// A write that is ready to be executed, now or as a ghost write later.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub op: Op,
    pub method: &'static str,
    pub table: usize,
    /// Column names and values as sent.
    pub fields: Vec<(String, String)>,
    pub actor: u32,
    pub admin: bool,
    pub via: Via,
    pub zone: TimeZone,
    /// `sysparm_input_display_value`.
    pub input_display_value: bool,
    /// `sysparm_suppress_auto_sys_field`.
    pub suppress_auto_sys_fields: bool,
    /// Milliseconds until list queries see it. `None`: at once.
    pub visibility_delay_ms: Option<u64>,
}

/// Executes a write and logs it. Returns the position of the written row; `None` after a delete.
pub(super) fn execute(
    database: &mut Database,
    write: &Write,
    faults: &Faults,
    settings: &Settings,
) -> Result<Option<u32>, WriteError> {
    let before = match write.op {
        Op::Insert => None,
        Op::Update(id) | Op::Delete(id) => database
            .locate(write.table, id)
            .and_then(|at| database.stores[database.schema.tables[write.table].store].get(at))
            .cloned(),
    };
    let closed_before = before.as_ref().is_some_and(|row| database.is_closed(row));
    let mut notes = Vec::new();
    let result = match write.op {
        Op::Insert => insert(database, write, faults, settings, &mut notes).map(|at| (Some(at), true)),
        Op::Update(id) => {
            update(database, write, id, faults, settings, &mut notes).map(|(at, changed)| (Some(at), changed))
        }
        Op::Delete(id) => delete(database, write, id, settings).map(|()| (None, true)),
    };
    let counts = &mut database.counts;
    match (&result, write.op) {
        (Err(_), _) => counts.rejected += 1,
        (Ok((_, false)), _) => counts.unchanged += 1,
        (Ok(_), Op::Insert) => counts.inserts += 1,
        (Ok(_), Op::Update(_)) => counts.updates += 1,
        (Ok(_), Op::Delete(_)) => counts.deletes += 1,
    }
    counts.to_closed_rows += u64::from(closed_before && write.via != Via::User);
    counts.ghost_writes_applied += u64::from(write.via == Via::GhostWrite && result.is_ok());
    if database.keep_write_log {
        log(database, write, before.as_ref(), closed_before, &result, notes);
    }
    result.map(|(at, _)| at)
}

type Notes = Vec<(Col, String)>;

fn insert(
    database: &mut Database,
    write: &Write,
    faults: &Faults,
    settings: &Settings,
    notes: &mut Notes,
) -> Result<u32, WriteError> {
    let now = database.now();
    let mut table = write.table;
    let mut sys_id = None;
    for (name, value) in &write.fields {
        match name.as_str() {
            "sys_id" if write.admin || !settings.admin_only_sys_fields => sys_id = parse_sys_id(value),
            "sys_class_name" => {
                if let Some(class) = database.schema.table(value).filter(|class| database.schema.is_a(*class, table)) {
                    table = class;
                }
            }
            _ => {}
        }
    }
    let store = database.schema.tables[table].store;
    if let Some(id) = sys_id.filter(|id| database.stores[store].find(*id).is_some()) {
        return Err(WriteError::Duplicate(id));
    }
    let sys_id = sys_id.unwrap_or_else(|| database.next_sys_id());
    let mut row = Row::new(table, sys_id, now, write.actor);
    let mut sent = Vec::new();
    assign(database, write, &mut row, faults, settings, &mut sent, notes);
    let mut change = Change { old: None, new: &mut row, sent: &sent, actor: write.actor, now, via: write.via };
    rules::run(database, &mut change, faults, settings.data_policy)?;
    if !database.schema.tables[table].prefix.is_empty() {
        row.number = database.next_number(table);
    }
    let at = database.stores[store].insert(&database.schema, row);
    add_notes(database, write, sys_id, table, now, notes);
    delay_visibility(database, store, at, None, write.visibility_delay_ms);
    Ok(at)
}

fn update(
    database: &mut Database,
    write: &Write,
    sys_id: u128,
    faults: &Faults,
    settings: &Settings,
    notes: &mut Notes,
) -> Result<(u32, bool), WriteError> {
    let now = database.now();
    let at = database.locate(write.table, sys_id).ok_or(WriteError::NoRecord)?;
    let store = database.schema.tables[write.table].store;
    let old = database.stores[store].get(at).cloned().ok_or(WriteError::NoRecord)?;
    if settings.reject_closed_writes && write.via != Via::User && !write.admin && database.is_closed(&old) {
        return Err(WriteError::Acl("Update"));
    }
    let mut row = old.clone();
    let mut sent = Vec::new();
    assign(database, write, &mut row, faults, settings, &mut sent, notes);
    let sys_fields_changed = write.suppress_auto_sys_fields
        && (row.updated, row.updated_by, row.created, row.created_by)
            != (old.updated, old.updated_by, old.created, old.created_by);
    if row.same_values(&old) && notes.is_empty() && !sys_fields_changed {
        return Ok((at, false));
    }
    let mut change = Change { old: Some(&old), new: &mut row, sent: &sent, actor: write.actor, now, via: write.via };
    rules::run(database, &mut change, faults, settings.data_policy)?;
    if row.same_values(&old) && notes.is_empty() && !sys_fields_changed {
        return Ok((at, false));
    }
    row.mod_count += 1;
    if !write.suppress_auto_sys_fields {
        row.updated = now.max(old.updated);
        row.updated_by = write.actor;
    }
    let table = row.table;
    database.stores[store].replace(&database.schema, at, row);
    add_notes(database, write, sys_id, table, now, notes);
    delay_visibility(database, store, at, Some(old), write.visibility_delay_ms);
    Ok((at, true))
}

fn delete(database: &mut Database, write: &Write, sys_id: u128, settings: &Settings) -> Result<(), WriteError> {
    let at = database.locate(write.table, sys_id).ok_or(WriteError::NoRecord)?;
    let store = database.schema.tables[write.table].store;
    let row = database.stores[store].get(at).cloned().ok_or(WriteError::NoRecord)?;
    if settings.reject_closed_writes && write.via != Via::User && !write.admin && database.is_closed(&row) {
        return Err(WriteError::Acl("Delete"));
    }
    let class = &database.schema.tables[row.table];
    let (class_name, display) = (class.name, database.raw(&row, class.display).into_owned());
    database.stores[store].remove(&database.schema, at);
    let table = database.schema.audit_delete_table;
    let values = [("tablename", class_name), ("documentkey", &*hex(sys_id)), ("display_value", &display)];
    add_row(database, table, write.actor, &values);
    Ok(())
}

fn add_row(database: &mut Database, table: usize, actor: u32, values: &[(&str, &str)]) -> u32 {
    let now = database.now();
    let sys_id = database.next_sys_id();
    let mut row = Row::new(table, sys_id, now, actor);
    for (name, value) in values {
        if let Some(col) = database.schema.column(table, name) {
            set(&database.schema, &mut row, col, value);
        }
    }
    let store = database.schema.tables[table].store;
    database.stores[store].insert(&database.schema, row)
}

/// Sets the values that the client sent. Journal texts go to `notes`, the set columns to `sent`.
fn assign(
    database: &Database,
    write: &Write,
    row: &mut Row,
    faults: &Faults,
    settings: &Settings,
    sent: &mut Vec<Col>,
    notes: &mut Notes,
) {
    for (name, value) in &write.fields {
        // A write through a base table reaches only the columns of the base table.
        let visible_table = if write.op == Op::Insert { row.table } else { write.table };
        let Some(col) = database.schema.column(visible_table, name) else { continue };
        let table_name = database.schema.tables[row.table].name;
        let is_unwritable = |entry: &String| entry.split_once('.') == Some((table_name, name.as_str()));
        if write.via != Via::User && !write.admin && faults.unwritable_columns.iter().any(is_unwritable) {
            continue;
        }
        if col <= sys::CLASS {
            let allowed = write.suppress_auto_sys_fields && (write.admin || !settings.admin_only_sys_fields);
            system_column(database, row, col, value, allowed);
            continue;
        }
        let column = database.schema.column_at(database.schema.tables[row.table].store, col);
        if column.kind == ColumnType::Journal {
            if !value.is_empty() {
                notes.push((col, value.clone()));
            }
            continue;
        }
        if let Some(value) = convert(database, write, row.table, col, value, faults) {
            set(&database.schema, row, col, &value);
            sent.push(col);
        }
    }
}

/// Sets a system column: dates only with `sysparm_suppress_auto_sys_field`, the class only within its hierarchy.
fn system_column(database: &Database, row: &mut Row, col: Col, value: &str, dates_allowed: bool) {
    match (col, dates_allowed) {
        (sys::CREATED_ON, true) => row.created = time::parse(value).unwrap_or(row.created),
        (sys::UPDATED_ON, true) => row.updated = time::parse(value).unwrap_or(row.updated),
        (sys::CLASS, _) => {
            let store = database.schema.tables[row.table].store;
            let class = database.schema.table(value).filter(|class| database.schema.tables[*class].store == store);
            row.table = class.unwrap_or(row.table);
        }
        _ => {}
    }
}

/// Returns the value to store for a sent value; `None` if it is ignored.
fn convert(database: &Database, write: &Write, table: usize, col: Col, value: &str, faults: &Faults) -> Option<String> {
    let column = database.schema.column_at(database.schema.tables[table].store, col);
    let cut = |value: &str| match column.max {
        0 => value.to_owned(),
        max => value.chars().take(max as usize).collect(),
    };
    if value.is_empty() {
        return Some(String::new());
    }
    match column.kind {
        ColumnType::Journal | ColumnType::Class => None,
        ColumnType::Text => Some(cut(value)),
        ColumnType::Boolean => Some(if matches!(value, "true" | "1" | "True") { "true" } else { "false" }.into()),
        ColumnType::Integer => value.trim().parse::<i64>().ok().map(|number| number.to_string()),
        ColumnType::Choice => {
            let list = database.schema.choices(table, col).unwrap_or_default();
            if write.input_display_value
                && let Some((value, _)) = list.iter().find(|(_, label)| collation_key(label) == collation_key(value))
            {
                return Some((*value).into());
            }
            match list.iter().find(|(known, _)| *known == value) {
                Some((known, _)) => Some((*known).into()),
                None if faults.allow_non_existing_value || list.is_empty() => Some(cut(value)),
                None => None,
            }
        }
        ColumnType::Reference(target) => {
            if write.input_display_value && parse_sys_id(value).is_none() {
                return database.find_by_display_value(target, value).map(hex);
            }
            Some(cut(value))
        }
        ColumnType::DateTime if write.input_display_value => time::from_zone(value, &write.zone),
        ColumnType::DateTime => time::parse(value).map(time::format),
        ColumnType::Duration => Some(cut(value)),
    }
}

fn add_notes(database: &mut Database, write: &Write, sys_id: u128, table: usize, now: i64, notes: &Notes) {
    let journal = database.schema.journal_table;
    let store = database.schema.tables[journal].store;
    for (col, text) in notes {
        let name = database.schema.tables[table].name;
        let element = if *col == database.schema.task.comments_and_work_notes {
            "comments".to_owned()
        } else {
            database.schema.column_at(database.schema.tables[table].store, *col).name.to_string()
        };
        let id = hex(sys_id);
        let values = [("name", name), ("element", &element), ("element_id", &*id), ("value", text)];
        let at = add_row(database, journal, write.actor, &values);
        debug_assert!(database.stores[store].get(at).is_some_and(|entry| entry.created >= now));
        delay_visibility(database, store, at, None, write.visibility_delay_ms);
    }
}

/// Hides a row version from list queries for a while. They see `previous` instead.
fn delay_visibility(
    database: &mut Database,
    store: usize,
    at: u32,
    previous: Option<Row>,
    visibility_delay_ms: Option<u64>,
) {
    let pending = database.stores[store].delayed.remove(&at);
    let Some(ms) = visibility_delay_ms else { return };
    let now = time::now_ms();
    let visible_at = now.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX));
    let delayed = match pending.filter(|pending| pending.visible_at > now) {
        Some(pending) => DelayedVersion { visible_at: visible_at.max(pending.visible_at), previous: pending.previous },
        None => DelayedVersion { visible_at, previous },
    };
    database.stores[store].delayed.insert(at, delayed);
    database.counts.delayed_visibility += 1;
}

fn log(
    database: &mut Database,
    write: &Write,
    before: Option<&Row>,
    closed_before: bool,
    result: &Result<(Option<u32>, bool), WriteError>,
    notes: Notes,
) {
    let store = database.schema.tables[write.table].store;
    let after = match result {
        Ok((Some(at), _)) => database.stores[store].get(*at),
        _ => None,
    };
    let task = store == database.schema.task_store;
    let text = |row: Option<&Row>, col: Col| -> Box<str> {
        row.filter(|_| task).map_or_else(Box::default, |row| (*database.raw(row, col)).into())
    };
    let either = after.or(before);
    let sent_id = match write.op {
        Op::Insert => None,
        Op::Update(id) | Op::Delete(id) => Some(id),
    };
    let named = |col: Col| database.schema.column_at(store, col).name.clone();
    let journal = |name: &str| {
        database
            .schema
            .column(write.table, name)
            .is_some_and(|col| database.schema.column_at(store, col).kind == ColumnType::Journal)
    };
    let fields = write.fields.iter().filter(|(name, _)| !journal(name)).map(|(name, value)| {
        let known = database.schema.column(write.table, name).map(named);
        (known.unwrap_or_else(|| name.as_str().into()), value.as_str().into())
    });
    let correlation_id = if either.is_some() {
        text(either, database.schema.task.correlation_id)
    } else {
        let sent = write.fields.iter().find(|(name, _)| name == "correlation_id");
        sent.map_or_else(Box::default, |(_, value)| value.as_str().into())
    };
    let entry = LogEntry {
        seq: database.log.len() as u64 + 1,
        at_ms: time::now_ms(),
        table: either.map_or(database.schema.tables[write.table].name, |row| database.schema.tables[row.table].name),
        sys_id: either.map(|row| row.sys_id).or(sent_id),
        number: text(either, database.schema.task.number),
        correlation_id,
        user: database.actors.shared_name(write.actor),
        method: write.method,
        op: match write.op {
            Op::Insert => "insert",
            Op::Update(_) => "update",
            Op::Delete(_) => "delete",
        },
        fields: fields.collect(),
        notes: notes.into_iter().map(|(col, value)| (named(col), value.into())).collect(),
        changed: matches!(result, Ok((_, true))),
        error: result.as_ref().err().map(|error| error.detail().into()),
        state_before: text(before, database.schema.task.state),
        state_after: text(after, database.schema.task.state),
        closed_before,
        mod_count: either.map_or(0, |row| row.mod_count),
        via: write.via,
    };
    database.log.push(entry);
}
