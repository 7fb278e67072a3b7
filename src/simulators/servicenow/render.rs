//! Rows as the Table API's JSON: raw, display or both, with reference links and dot-walked columns.

use std::io::Write;

use jiff::tz::TimeZone;

use super::columns::Kind;
use super::query;
use super::schema::{Col, sys};
use super::storage::Row;
use super::time;
use super::world::World;

/// `sysparm_display_value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Raw,
    Display,
    Both,
}

/// How a caller wants rows.
pub(super) struct View {
    pub mode: Mode,
    pub exclude_link: bool,
    /// `https://.../api/now[/v2]/table/`, with the version segment the caller used.
    pub link_base: String,
    pub zone: TimeZone,
    /// Keys and paths to write, in order.
    pub columns: Vec<(String, Vec<Col>)>,
}

/// The columns named by `sysparm_fields` that exist, or all visible ones; without those the caller may not read.
pub(super) fn columns(world: &World, table: usize, fields: Option<&str>, hidden: &[String]) -> Vec<(String, Vec<Col>)> {
    let name = world.schema.tables[table].name;
    let readable = |key: &str| !hidden.iter().any(|hidden| hidden.split_once('.') == Some((name, key)));
    let named = fields.map(str::trim).filter(|fields| !fields.is_empty());
    let Some(fields) = named else {
        let store = world.schema.tables[table].store;
        let all = world.schema.tables[table].columns.iter();
        return all
            .map(|col| (world.schema.def(store, *col).name.to_string(), vec![*col]))
            .filter(|(key, _)| readable(key))
            .collect();
    };
    let mut columns: Vec<(String, Vec<Col>)> = Vec::new();
    for key in fields.split(',').map(str::trim).filter(|key| readable(key)) {
        if columns.iter().any(|(known, _)| known == key) {
            continue;
        }
        if let Some(path) = query::path(&world.schema, table, key) {
            columns.push((key.to_owned(), path));
        }
    }
    columns
}

fn text(out: &mut Vec<u8>, value: &str) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(&mut *out, value);
}

/// Appends one row as an object.
pub(super) fn row(world: &World, out: &mut Vec<u8>, row: &Row, view: &View) {
    let store = world.schema.tables[row.table].store;
    out.push(b'{');
    for (at, (key, path)) in view.columns.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text(out, key);
        out.push(b':');
        end_of(world, out, store, row, path, view);
    }
    out.push(b'}');
}

fn end_of(world: &World, out: &mut Vec<u8>, store: usize, from: &Row, path: &[Col], view: &View) {
    match path {
        [] => text(out, ""),
        [col] => value(world, out, store, from, *col, view),
        [col, rest @ ..] => {
            let target = match world.schema.def(store, *col).kind {
                Kind::Reference(target) => world.referenced(target, &world.raw(from, *col)),
                _ => None,
            };
            match target {
                Some((store, row)) => end_of(world, out, store, row, rest, view),
                None => both(out, "", "", None, view),
            }
        }
    }
}

fn value(world: &World, out: &mut Vec<u8>, store: usize, row: &Row, col: Col, view: &View) {
    let kind = world.schema.def(store, col).kind;
    if kind == Kind::Journal {
        let shown = if view.mode == Mode::Raw { String::new() } else { journal(world, store, row, col, &view.zone) };
        return both(out, "", &shown, None, view);
    }
    let raw = world.raw(row, col);
    let target = match kind {
        Kind::Reference(target) if !raw.is_empty() => Some(target),
        _ => None,
    };
    match view.mode {
        Mode::Raw => both(out, &raw, "", target, view),
        Mode::Display | Mode::Both => both(out, &raw, &display(world, store, row, col, &view.zone), target, view),
    }
}

/// One value in the asked mode; a reference's link goes with it unless excluded.
fn both(out: &mut Vec<u8>, raw: &str, shown: &str, target: Option<&str>, view: &View) {
    let target = target.filter(|_| !view.exclude_link);
    if target.is_none() && view.mode != Mode::Both {
        return text(out, if view.mode == Mode::Raw { raw } else { shown });
    }
    out.push(b'{');
    if view.mode != Mode::Raw {
        out.extend_from_slice(b"\"display_value\":");
        text(out, shown);
    }
    if let Some(target) = target {
        out.extend_from_slice(if view.mode == Mode::Raw { b"\"link\":" } else { b",\"link\":" });
        // The global domain is shown as a group, which is how recorded answers have it.
        text(out, &format!("{}{target}/{raw}", view.link_base));
    }
    if view.mode != Mode::Display {
        out.extend_from_slice(b",\"value\":");
        text(out, raw);
    }
    out.push(b'}');
}

/// A value as a user in that time zone sees it.
pub(super) fn display(world: &World, store: usize, row: &Row, col: Col, zone: &TimeZone) -> String {
    let raw = world.raw(row, col);
    if raw.is_empty() {
        return String::new();
    }
    match world.schema.def(store, col).kind {
        Kind::Reference(target) => match world.referenced(target, &raw) {
            Some((store, row)) => {
                let col = world.schema.tables[row.table].display;
                if world.schema.def(store, col).kind == Kind::Text {
                    world.raw(row, col).into_owned()
                } else {
                    raw.into()
                }
            }
            None if raw == "global" => "global".into(),
            None => String::new(),
        },
        Kind::Choice => {
            let list = world.schema.choices(row.table, col).unwrap_or_default();
            list.iter().find(|(value, _)| *value == raw).map_or_else(|| raw.to_string(), |(_, label)| (*label).into())
        }
        Kind::DateTime => time::to_zone(&raw, zone),
        Kind::Integer => thousands(&raw),
        Kind::Class => world.schema.tables[row.table].label.into(),
        Kind::Journal => journal(world, store, row, col, zone),
        Kind::Text | Kind::Boolean | Kind::Duration => raw.into_owned(),
    }
}

fn thousands(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let mut out = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// All entries of a journal column, newest first, as a form shows them.
fn journal(world: &World, store: usize, row: &Row, col: Col, zone: &TimeZone) -> String {
    let name = &*world.schema.def(store, col).name;
    let combined = name == "comments_and_work_notes";
    let table = world.schema.journal_table;
    let at = |name: &str| world.schema.column(table, name).unwrap_or(sys::ID);
    let (element, value) = (at("element"), at("value"));
    let users = world.schema.table("sys_user").map(|table| &world.schema.tables[table]);
    let mut out = Vec::new();
    for entry in world.journal_of(row.sys_id).rev() {
        let kind = world.raw(entry, element);
        if !combined && kind != name {
            continue;
        }
        let author = world.actors.name(entry.created_by);
        let author = world
            .actors
            .sys_id(entry.created_by)
            .and_then(|id| world.stores[users?.store].row(id))
            .zip(users)
            .map_or_else(|| author.into(), |(user, table)| world.raw(user, table.display));
        let label = if kind == "work_notes" { "Work notes" } else { "Additional comments" };
        let when = time::to_zone(&time::format(entry.created), zone);
        let _ = write!(out, "{when} - {author} ({label})\n{}\n\n", world.raw(entry, value));
    }
    String::from_utf8(out).unwrap_or_default()
}
