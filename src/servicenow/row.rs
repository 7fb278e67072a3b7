//! Rows in responses: parsing, and comparison of a write's response with what was sent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::model::{Answer, Column, Failure, FailureClass, Row};

use super::classify::{RequestKind, ambiguous};
use super::text::{bounded, is_sys_id};
use super::{Connection, Request};

/// Columns that are requested of every row, besides the state and the correlation.
pub const STANDARD_COLUMNS: [&str; 6] =
    ["sys_id", "number", "sys_mod_count", "sys_updated_by", "sys_updated_on", "sys_created_on"];

/// Columns that are requested of every row and that not every table has.
pub const OPTIONAL_COLUMNS: [&str; 3] = ["active", "closed_at", "resolved_at"];

/// Columns that take entries and are returned empty.
const JOURNAL_COLUMNS: [&str; 3] = ["work_notes", "comments", "comments_and_work_notes"];

/// Maximum characters of a value in a warning.
const MAX_SHOWN_VALUE: usize = 60;

/// The columns of one row in a response, with their raw values.
#[derive(Debug, Default)]
pub struct RawRow(pub Vec<(String, String)>);

impl RawRow {
    /// The value of a column; `None` where the user may not read it.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value.as_str())
    }
}

impl<'de> Deserialize<'de> for RawRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = RawRow;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a row")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawRow, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((name, Text(value))) = map.next_entry::<String, Text>()? {
                    fields.push((name, value.into_owned()));
                }
                Ok(RawRow(fields))
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

/// A raw value. The instance sends strings. A reference that is returned as an object in spite of
/// `sysparm_exclude_reference_link` is read as its `value`; its link is never followed.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a value of a column")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
            fn visit_string<E>(self, v: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v)))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(if v { "true" } else { "false" })))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v.to_string())))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v.to_string())))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v.to_string())))
            }
            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed("")))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text<'de>, A::Error> {
                let mut value = Cow::Borrowed("");
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    if name == "value" {
                        value = map.next_value::<Text<'de>>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Text(value))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

/// Parses a row. The columns on which the engine's decisions depend (id, state, version, times) must be readable: a
/// column hidden from the bridge's user would otherwise be read as an early time or an open state.
pub fn parse(kind: RequestKind, connection: &Connection, fields: RawRow, requested: &[Column]) -> Result<Row, Failure> {
    let mut row = Row::default();
    let mut readable = [false; 6];
    let mut values = BTreeMap::new();
    let mut version = None;
    for (name, value) in fields.0 {
        if STANDARD_COLUMNS.contains(&name.as_str()) && requested.iter().any(|column| **column == *name) {
            values.insert(name.clone(), value.clone());
        }
        match name.as_str() {
            "sys_id" => {
                readable[0] = is_sys_id(&value);
                row.sys_id = value;
            }
            "number" => row.number = value,
            "sys_mod_count" => {
                version = value.parse().ok();
                readable[1] = version.is_some();
            }
            "sys_updated_by" => {
                readable[2] = true;
                row.updated_by = value;
            }
            "sys_updated_on" => {
                let at = date_time(&value);
                readable[3] = at.is_some();
                row.updated_on = at.unwrap_or_default();
            }
            "sys_created_on" => {
                let at = date_time(&value);
                readable[4] = at.is_some();
                row.created_on = at.unwrap_or_default();
            }
            "active" => {
                row.inactive |= value == "false";
                values.insert(name, value);
            }
            "closed_at" => {
                row.inactive |= !value.is_empty();
                row.closed_at = date_time(&value);
                values.insert(name, value);
            }
            "resolved_at" => {
                row.resolved_at = date_time(&value);
                values.insert(name, value);
            }
            _ if name == connection.state_column => {
                readable[5] = true;
                row.state.clone_from(&value);
                values.insert(name, value);
            }
            _ => {
                values.insert(name, value);
            }
        }
    }
    let needed =
        ["sys_id", "sys_mod_count", "sys_updated_by", "sys_updated_on", "sys_created_on", &connection.state_column];
    let readable = needed.into_iter().zip(readable);
    let hidden: Vec<&str> = readable.filter(|(_, readable)| !readable).map(|(name, _)| name).collect();
    if !hidden.is_empty() {
        let columns = hidden.join(", ");
        let reason = format!("the record was returned without a usable {columns}; let the bridge's user read them");
        return Err(ambiguous(kind, true, FailureClass::Transient, "columns_unreadable", &reason));
    }
    row.mod_count = version.unwrap_or_default();
    row.values = values;
    Ok(row)
}

/// Parses a raw date-time, `YYYY-MM-DD HH:MM:SS` in UTC; returns Unix seconds.
pub fn date_time(value: &str) -> Option<i64> {
    let civil: jiff::civil::DateTime = value.parse().ok()?;
    jiff::tz::TimeZone::UTC.to_timestamp(civil).ok().map(jiff::Timestamp::as_second)
}

/// Compares a write's response with what was sent, and returns its answer. Another row is a failure: the application has
/// responded, so its transaction has ended, and reading the row verifies the write. Other values are warnings.
pub fn compare(kind: RequestKind, connection: &Connection, sent: &Request, row: Row) -> Result<Answer, Failure> {
    let fields = match sent {
        Request::Create { correlation, fields, .. } => {
            match row.values.get(&connection.correlation_column) {
                Some(stored) if stored == correlation => {}
                stored => {
                    let column = &connection.correlation_column;
                    let stored = stored.map_or("no readable value", String::as_str);
                    let reason = format!("{column}: sent {correlation:?}, {} has {stored:?}", row.number);
                    return Ok(Answer::WithoutCorrelation { row: Box::new(row), reason });
                }
            }
            fields
        }
        Request::Update { sys_id, fields, .. } => {
            if row.sys_id != *sys_id {
                let reason = format!("wrote to {sys_id}, the response shows {}", row.sys_id);
                return Err(ambiguous(kind, true, FailureClass::Transient, "row_differs", &reason));
            }
            fields
        }
        Request::SendEvent { .. }
        | Request::FindEvents { .. }
        | Request::Read { .. }
        | Request::ReadMany { .. }
        | Request::Find { .. } => &Vec::new(),
    };
    let mut warnings = Vec::new();
    for (column, value) in fields {
        if JOURNAL_COLUMNS.contains(&&**column) || **column == *connection.journal_column {
            continue;
        }
        let Some(stored) = row.values.get(&**column) else { continue };
        if stored == value {
            continue;
        }
        let (sent, stored) = (bounded(value, MAX_SHOWN_VALUE), bounded(stored, MAX_SHOWN_VALUE));
        warnings.push(format!("{column}: sent {sent:?}, stored {stored:?}"));
    }
    Ok(Answer::Applied { row: Box::new(row), warnings })
}
