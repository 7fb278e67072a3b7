//! JSON of rows in the Table API: raw values, display values or both, with reference links and dot-walked columns.

use std::io::Write;

use jiff::tz::TimeZone;

use super::columns::ColumnType;
use super::database::Database;
use super::query;
use super::schema::{Col, sys};
use super::table_storage::Row;
use super::time;

/// `sysparm_display_value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DisplayMode {
    Raw,
    Display,
    Both,
}

/// The format of the rows in a response.
pub(super) struct View {
    pub mode: DisplayMode,
    pub exclude_link: bool,
    /// `https://.../api/now[/v2]/table/`, with the API version of the request.
    pub link_base: String,
    pub zone: TimeZone,
    /// Keys and column paths, in order.
    pub columns: Vec<(String, Vec<Col>)>,
}

/// Returns the existing columns of `sysparm_fields`, or all columns without it, minus those that the caller may not
/// read.
pub(super) fn columns(
    database: &Database,
    table: usize,
    fields: Option<&str>,
    hidden: &[String],
) -> Vec<(String, Vec<Col>)> {
    let name = database.schema.tables[table].name;
    let readable = |key: &str| !hidden.iter().any(|hidden| hidden.split_once('.') == Some((name, key)));
    let named = fields.map(str::trim).filter(|fields| !fields.is_empty());
    let Some(fields) = named else {
        let store = database.schema.tables[table].store;
        let all = database.schema.tables[table].columns.iter();
        return all
            .map(|col| (database.schema.column_at(store, *col).name.to_string(), vec![*col]))
            .filter(|(key, _)| readable(key))
            .collect();
    };
    let mut columns: Vec<(String, Vec<Col>)> = Vec::new();
    for key in fields.split(',').map(str::trim).filter(|key| readable(key)) {
        if columns.iter().any(|(known, _)| known == key) {
            continue;
        }
        if let Some(path) = query::path(&database.schema, table, key) {
            columns.push((key.to_owned(), path));
        }
    }
    columns
}

fn write_string(out: &mut Vec<u8>, value: &str) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(&mut *out, value);
}

/// Writes a row as a JSON object.
pub(super) fn row(database: &Database, out: &mut Vec<u8>, row: &Row, view: &View) {
    let store = database.schema.tables[row.table].store;
    out.push(b'{');
    for (at, (key, path)) in view.columns.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(out, key);
        out.push(b':');
        write_path(database, out, store, row, path, view);
    }
    out.push(b'}');
}

fn write_path(database: &Database, out: &mut Vec<u8>, store: usize, from: &Row, path: &[Col], view: &View) {
    match path {
        [] => write_string(out, ""),
        [col] => value(database, out, store, from, *col, view),
        [col, rest @ ..] => {
            let target = match database.schema.column_at(store, *col).kind {
                ColumnType::Reference(target) => database.referenced_row(target, &database.raw(from, *col)),
                _ => None,
            };
            match target {
                Some((store, row)) => write_path(database, out, store, row, rest, view),
                None => write_value(out, "", "", None, view),
            }
        }
    }
}

fn value(database: &Database, out: &mut Vec<u8>, store: usize, row: &Row, col: Col, view: &View) {
    let kind = database.schema.column_at(store, col).kind;
    if kind == ColumnType::Journal {
        let shown =
            if view.mode == DisplayMode::Raw { String::new() } else { journal(database, store, row, col, &view.zone) };
        return write_value(out, "", &shown, None, view);
    }
    let raw = database.raw(row, col);
    let target = match kind {
        ColumnType::Reference(target) if !raw.is_empty() => Some(target),
        _ => None,
    };
    match view.mode {
        DisplayMode::Raw => write_value(out, &raw, "", target, view),
        DisplayMode::Display | DisplayMode::Both => {
            write_value(out, &raw, &display(database, store, row, col, &view.zone), target, view);
        }
    }
}

/// Writes a value in the requested mode, with the link of a reference unless excluded.
fn write_value(out: &mut Vec<u8>, raw: &str, shown: &str, target: Option<&str>, view: &View) {
    let target = target.filter(|_| !view.exclude_link);
    if target.is_none() && view.mode != DisplayMode::Both {
        return write_string(out, if view.mode == DisplayMode::Raw { raw } else { shown });
    }
    out.push(b'{');
    if view.mode != DisplayMode::Raw {
        out.extend_from_slice(b"\"display_value\":");
        write_string(out, shown);
    }
    if let Some(target) = target {
        out.extend_from_slice(if view.mode == DisplayMode::Raw { b"\"link\":" } else { b",\"link\":" });
        // The link of the global domain names a group table, as in recorded responses.
        write_string(out, &format!("{}{target}/{raw}", view.link_base));
    }
    if view.mode != DisplayMode::Display {
        out.extend_from_slice(b",\"value\":");
        write_string(out, raw);
    }
    out.push(b'}');
}

/// Returns the display value for a user in a time zone.
pub(super) fn display(database: &Database, store: usize, row: &Row, col: Col, zone: &TimeZone) -> String {
    let raw = database.raw(row, col);
    if raw.is_empty() {
        return String::new();
    }
    match database.schema.column_at(store, col).kind {
        ColumnType::Reference(target) => match database.referenced_row(target, &raw) {
            Some((store, row)) => {
                let col = database.schema.tables[row.table].display;
                if database.schema.column_at(store, col).kind == ColumnType::Text {
                    database.raw(row, col).into_owned()
                } else {
                    raw.into()
                }
            }
            None if raw == "global" => "global".into(),
            None => String::new(),
        },
        ColumnType::Choice => {
            let list = database.schema.choices(row.table, col).unwrap_or_default();
            list.iter().find(|(value, _)| *value == raw).map_or_else(|| raw.to_string(), |(_, label)| (*label).into())
        }
        ColumnType::DateTime => time::to_zone(&raw, zone),
        ColumnType::Integer => thousands(&raw),
        ColumnType::Class => database.schema.tables[row.table].label.into(),
        ColumnType::Journal => journal(database, store, row, col, zone),
        ColumnType::Text | ColumnType::Boolean | ColumnType::Duration => raw.into_owned(),
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

/// Returns all entries of a journal column, newest first, in the format of the form.
fn journal(database: &Database, store: usize, row: &Row, col: Col, zone: &TimeZone) -> String {
    let name = &*database.schema.column_at(store, col).name;
    let combined = name == "comments_and_work_notes";
    let table = database.schema.journal_table;
    let at = |name: &str| database.schema.column(table, name).unwrap_or(sys::ID);
    let (element, value) = (at("element"), at("value"));
    let users = database.schema.table("sys_user").map(|table| &database.schema.tables[table]);
    let mut out = Vec::new();
    for entry in database.journal_entries(row.sys_id).rev() {
        let kind = database.raw(entry, element);
        if !combined && kind != name {
            continue;
        }
        let author = database.actors.name(entry.created_by);
        let author = database
            .actors
            .sys_id(entry.created_by)
            .and_then(|id| database.stores[users?.store].row(id))
            .zip(users)
            .map_or_else(|| author.into(), |(user, table)| database.raw(user, table.display));
        let label = if kind == "work_notes" { "Work notes" } else { "Additional comments" };
        let when = time::to_zone(&time::format(entry.created), zone);
        let _ = write!(out, "{when} - {author} ({label})\n{}\n\n", database.raw(entry, value));
    }
    String::from_utf8(out).unwrap_or_default()
}
