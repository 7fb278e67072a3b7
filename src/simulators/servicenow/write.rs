//! Executing a write: what the client sent becomes values, rules run, the row is stored and the write is logged.
//!
//! Everything that happens silently on a real instance happens here: unknown columns and choices are ignored, text is
//! cut to the column, any text is taken for a reference, a write that changes nothing leaves the row alone.

use jiff::tz::TimeZone;

use super::columns::Kind;
use super::faults::Faults;
use super::history::{Logged, Via};
use super::options::Switches;
use super::rules::{self, Change, Refusal};
use super::schema::{Col, sys};
use super::storage::{Late, Row, fold, hex, parse_sys_id, set};
use super::time;
use super::world::World;

/// What is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    Update(u128),
    Delete(u128),
}

/// A write, ready to be executed now or, as a ghost, later.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub op: Op,
    pub method: &'static str,
    pub table: usize,
    /// As sent: names and text values.
    pub fields: Vec<(String, String)>,
    pub actor: u32,
    pub admin: bool,
    pub via: Via,
    pub zone: TimeZone,
    /// `sysparm_input_display_value`.
    pub by_label: bool,
    /// `sysparm_suppress_auto_sys_field`.
    pub keeps_stamps: bool,
    /// Milliseconds until list queries see it.
    pub late_ms: Option<u64>,
}

/// Executes a write and logs it. The position of the written row; a deleted row has none.
pub(super) fn execute(
    world: &mut World,
    write: &Write,
    faults: &Faults,
    switches: &Switches,
) -> Result<Option<u32>, Refusal> {
    let before = match write.op {
        Op::Insert => None,
        Op::Update(id) | Op::Delete(id) => world
            .locate(write.table, id)
            .and_then(|at| world.stores[world.schema.tables[write.table].store].get(at))
            .cloned(),
    };
    let closed_before = before.as_ref().is_some_and(|row| world.is_closed(row));
    let mut notes = Vec::new();
    let result = match write.op {
        Op::Insert => insert(world, write, faults, switches, &mut notes).map(|at| (Some(at), true)),
        Op::Update(id) => update(world, write, id, faults, switches, &mut notes).map(|(at, did)| (Some(at), did)),
        Op::Delete(id) => delete(world, write, id, switches).map(|()| (None, true)),
    };
    let counts = &mut world.counts;
    match (&result, write.op) {
        (Err(_), _) => counts.refused += 1,
        (Ok((_, false)), _) => counts.unchanged += 1,
        (Ok(_), Op::Insert) => counts.inserts += 1,
        (Ok(_), Op::Update(_)) => counts.updates += 1,
        (Ok(_), Op::Delete(_)) => counts.deletes += 1,
    }
    counts.to_closed_rows += u64::from(closed_before && write.via != Via::Person);
    counts.ghosts_applied += u64::from(write.via == Via::Ghost && result.is_ok());
    if world.keeps_history {
        log(world, write, before.as_ref(), closed_before, &result, notes);
    }
    result.map(|(at, _)| at)
}

type Notes = Vec<(Col, String)>;

fn insert(
    world: &mut World,
    write: &Write,
    faults: &Faults,
    switches: &Switches,
    notes: &mut Notes,
) -> Result<u32, Refusal> {
    let now = world.now();
    let mut table = write.table;
    let mut sys_id = None;
    for (name, value) in &write.fields {
        match name.as_str() {
            "sys_id" if write.admin || !switches.admin_only_sys_fields => sys_id = parse_sys_id(value),
            "sys_class_name" => {
                if let Some(class) = world.schema.table(value).filter(|class| world.schema.is_a(*class, table)) {
                    table = class;
                }
            }
            _ => {}
        }
    }
    let store = world.schema.tables[table].store;
    if let Some(id) = sys_id.filter(|id| world.stores[store].find(*id).is_some()) {
        return Err(Refusal::Duplicate(id));
    }
    let sys_id = sys_id.unwrap_or_else(|| world.next_sys_id());
    let mut row = Row::new(table, sys_id, now, write.actor);
    let mut sent = Vec::new();
    assign(world, write, &mut row, faults, switches, &mut sent, notes);
    let mut change = Change { old: None, new: &mut row, sent: &sent, actor: write.actor, now, via: write.via };
    rules::run(world, &mut change, faults, switches.data_policy)?;
    if !world.schema.tables[table].prefix.is_empty() {
        row.number = world.next_number(table);
    }
    let at = world.stores[store].insert(&world.schema, row);
    add_notes(world, write, sys_id, table, now, notes);
    hide(world, store, at, None, write.late_ms);
    Ok(at)
}

fn update(
    world: &mut World,
    write: &Write,
    sys_id: u128,
    faults: &Faults,
    switches: &Switches,
    notes: &mut Notes,
) -> Result<(u32, bool), Refusal> {
    let now = world.now();
    let at = world.locate(write.table, sys_id).ok_or(Refusal::NoRecord)?;
    let store = world.schema.tables[write.table].store;
    let old = world.stores[store].get(at).cloned().ok_or(Refusal::NoRecord)?;
    if switches.refuse_closed_writes && write.via != Via::Person && !write.admin && world.is_closed(&old) {
        return Err(Refusal::Acl("Update"));
    }
    let mut row = old.clone();
    let mut sent = Vec::new();
    assign(world, write, &mut row, faults, switches, &mut sent, notes);
    let stamped = write.keeps_stamps
        && (row.updated, row.updated_by, row.created, row.created_by)
            != (old.updated, old.updated_by, old.created, old.created_by);
    if row.same_values(&old) && notes.is_empty() && !stamped {
        return Ok((at, false));
    }
    let mut change = Change { old: Some(&old), new: &mut row, sent: &sent, actor: write.actor, now, via: write.via };
    rules::run(world, &mut change, faults, switches.data_policy)?;
    if row.same_values(&old) && notes.is_empty() && !stamped {
        return Ok((at, false));
    }
    row.mod_count += 1;
    if !write.keeps_stamps {
        row.updated = now.max(old.updated);
        row.updated_by = write.actor;
    }
    let table = row.table;
    world.stores[store].replace(&world.schema, at, row);
    add_notes(world, write, sys_id, table, now, notes);
    hide(world, store, at, Some(old), write.late_ms);
    Ok((at, true))
}

fn delete(world: &mut World, write: &Write, sys_id: u128, switches: &Switches) -> Result<(), Refusal> {
    let at = world.locate(write.table, sys_id).ok_or(Refusal::NoRecord)?;
    let store = world.schema.tables[write.table].store;
    let row = world.stores[store].get(at).cloned().ok_or(Refusal::NoRecord)?;
    if switches.refuse_closed_writes && write.via != Via::Person && !write.admin && world.is_closed(&row) {
        return Err(Refusal::Acl("Delete"));
    }
    let class = &world.schema.tables[row.table];
    let (class_name, display) = (class.name, world.raw(&row, class.display).into_owned());
    world.stores[store].remove(&world.schema, at);
    let table = world.schema.audit_delete_table;
    let values = [("tablename", class_name), ("documentkey", &*hex(sys_id)), ("display_value", &display)];
    add_row(world, table, write.actor, &values);
    Ok(())
}

fn add_row(world: &mut World, table: usize, actor: u32, values: &[(&str, &str)]) -> u32 {
    let now = world.now();
    let sys_id = world.next_sys_id();
    let mut row = Row::new(table, sys_id, now, actor);
    for (name, value) in values {
        if let Some(col) = world.schema.column(table, name) {
            set(&world.schema, &mut row, col, value);
        }
    }
    let store = world.schema.tables[table].store;
    world.stores[store].insert(&world.schema, row)
}

/// Gives a row the values a client sent; journal texts are put aside.
fn assign(
    world: &World,
    write: &Write,
    row: &mut Row,
    faults: &Faults,
    switches: &Switches,
    sent: &mut Vec<Col>,
    notes: &mut Notes,
) {
    for (name, value) in &write.fields {
        // Through a base table only its own columns are reached.
        let seen_as = if write.op == Op::Insert { row.table } else { write.table };
        let Some(col) = world.schema.column(seen_as, name) else { continue };
        let table_name = world.schema.tables[row.table].name;
        let closed = |entry: &String| entry.split_once('.') == Some((table_name, name.as_str()));
        if write.via != Via::Person && !write.admin && faults.unwritable_columns.iter().any(closed) {
            continue;
        }
        if col <= sys::CLASS {
            let allowed = write.keeps_stamps && (write.admin || !switches.admin_only_sys_fields);
            system_column(world, row, col, value, allowed);
            continue;
        }
        let column = world.schema.def(world.schema.tables[row.table].store, col);
        if column.kind == Kind::Journal {
            if !value.is_empty() {
                notes.push((col, value.clone()));
            }
            continue;
        }
        if let Some(value) = convert(world, write, row.table, col, value, faults) {
            set(&world.schema, row, col, &value);
            sent.push(col);
        }
    }
}

/// Stamps follow the client only with `sysparm_suppress_auto_sys_field`; the class may change within its hierarchy.
fn system_column(world: &World, row: &mut Row, col: Col, value: &str, stamps: bool) {
    match (col, stamps) {
        (sys::CREATED_ON, true) => row.created = time::parse(value).unwrap_or(row.created),
        (sys::UPDATED_ON, true) => row.updated = time::parse(value).unwrap_or(row.updated),
        (sys::CLASS, _) => {
            let store = world.schema.tables[row.table].store;
            let class = world.schema.table(value).filter(|class| world.schema.tables[*class].store == store);
            row.table = class.unwrap_or(row.table);
        }
        _ => {}
    }
}

/// What is stored for a sent value; none where the value is ignored.
fn convert(world: &World, write: &Write, table: usize, col: Col, value: &str, faults: &Faults) -> Option<String> {
    let column = world.schema.def(world.schema.tables[table].store, col);
    let cut = |value: &str| match column.max {
        0 => value.to_owned(),
        max => value.chars().take(max as usize).collect(),
    };
    if value.is_empty() {
        return Some(String::new());
    }
    match column.kind {
        Kind::Journal | Kind::Class => None,
        Kind::Text => Some(cut(value)),
        Kind::Boolean => Some(if matches!(value, "true" | "1" | "True") { "true" } else { "false" }.into()),
        Kind::Integer => value.trim().parse::<i64>().ok().map(|number| number.to_string()),
        Kind::Choice => {
            let list = world.schema.choices(table, col).unwrap_or_default();
            if write.by_label
                && let Some((value, _)) = list.iter().find(|(_, label)| fold(label) == fold(value))
            {
                return Some((*value).into());
            }
            match list.iter().find(|(known, _)| *known == value) {
                Some((known, _)) => Some((*known).into()),
                None if faults.allow_non_existing_value || list.is_empty() => Some(cut(value)),
                None => None,
            }
        }
        Kind::Reference(target) => {
            if write.by_label && parse_sys_id(value).is_none() {
                return world.by_display(target, value).map(hex);
            }
            Some(cut(value))
        }
        Kind::DateTime if write.by_label => time::from_zone(value, &write.zone),
        Kind::DateTime => time::parse(value).map(time::format),
        Kind::Duration => Some(cut(value)),
    }
}

fn add_notes(world: &mut World, write: &Write, sys_id: u128, table: usize, now: i64, notes: &Notes) {
    let journal = world.schema.journal_table;
    let store = world.schema.tables[journal].store;
    for (col, text) in notes {
        let name = world.schema.tables[table].name;
        let element = if *col == world.schema.task.comments_and_work_notes {
            "comments".to_owned()
        } else {
            world.schema.def(world.schema.tables[table].store, *col).name.to_string()
        };
        let id = hex(sys_id);
        let values = [("name", name), ("element", &element), ("element_id", &*id), ("value", text)];
        let at = add_row(world, journal, write.actor, &values);
        debug_assert!(world.stores[store].get(at).is_some_and(|entry| entry.created >= now));
        hide(world, store, at, None, write.late_ms);
    }
}

/// Lets list queries see the version before for a while.
fn hide(world: &mut World, store: usize, at: u32, before: Option<Row>, late_ms: Option<u64>) {
    let pending = world.stores[store].late.remove(&at);
    let Some(ms) = late_ms else { return };
    let now = time::now_ms();
    let visible_at = now.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX));
    let late = match pending.filter(|pending| pending.visible_at > now) {
        Some(pending) => Late { visible_at: visible_at.max(pending.visible_at), before: pending.before },
        None => Late { visible_at, before },
    };
    world.stores[store].late.insert(at, late);
    world.counts.late_visible += 1;
}

fn log(
    world: &mut World,
    write: &Write,
    before: Option<&Row>,
    closed_before: bool,
    result: &Result<(Option<u32>, bool), Refusal>,
    notes: Notes,
) {
    let store = world.schema.tables[write.table].store;
    let after = match result {
        Ok((Some(at), _)) => world.stores[store].get(*at),
        _ => None,
    };
    let task = store == world.schema.task_store;
    let text = |row: Option<&Row>, col: Col| -> Box<str> {
        row.filter(|_| task).map_or_else(Box::default, |row| (*world.raw(row, col)).into())
    };
    let either = after.or(before);
    let sent_id = match write.op {
        Op::Insert => None,
        Op::Update(id) | Op::Delete(id) => Some(id),
    };
    let named = |col: Col| world.schema.def(store, col).name.clone();
    let journal = |name: &str| {
        world.schema.column(write.table, name).is_some_and(|col| world.schema.def(store, col).kind == Kind::Journal)
    };
    let fields = write.fields.iter().filter(|(name, _)| !journal(name)).map(|(name, value)| {
        let known = world.schema.column(write.table, name).map(named);
        (known.unwrap_or_else(|| name.as_str().into()), value.as_str().into())
    });
    let correlation_id = if either.is_some() {
        text(either, world.schema.task.correlation_id)
    } else {
        let sent = write.fields.iter().find(|(name, _)| name == "correlation_id");
        sent.map_or_else(Box::default, |(_, value)| value.as_str().into())
    };
    let entry = Logged {
        seq: world.log.len() as u64 + 1,
        at_ms: time::now_ms(),
        table: either.map_or(world.schema.tables[write.table].name, |row| world.schema.tables[row.table].name),
        sys_id: either.map(|row| row.sys_id).or(sent_id),
        number: text(either, world.schema.task.number),
        correlation_id,
        user: world.actors.shared_name(write.actor),
        method: write.method,
        op: match write.op {
            Op::Insert => "insert",
            Op::Update(_) => "update",
            Op::Delete(_) => "delete",
        },
        fields: fields.collect(),
        notes: notes.into_iter().map(|(col, value)| (named(col), value.into())).collect(),
        changed: matches!(result, Ok((_, true))),
        refused: result.as_ref().err().map(|refusal| refusal.detail().into()),
        state_before: text(before, world.schema.task.state),
        state_after: text(after, world.schema.task.state),
        closed_before,
        mod_count: either.map_or(0, |row| row.mod_count),
        via: write.via,
    };
    world.log.push(entry);
}
