//! Rows as they come in answers, and the check of a write's answer against what was sent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::model::{Class, Column, Failure, Row};

use super::classify::{Kind, doubt};
use super::text::{bounded, is_sys_id};
use super::{Connection, Request};

/// Columns that every row is asked for, beside the state and the correlation.
pub const STANDARD: [&str; 6] =
    ["sys_id", "number", "sys_mod_count", "sys_updated_by", "sys_updated_on", "sys_created_on"];

/// Columns that take entries and read back empty.
const JOURNALS: [&str; 3] = ["work_notes", "comments", "comments_and_work_notes"];

/// Most characters of a value that a warning shows.
const SHOWN_VALUE: usize = 60;

/// The columns of one row in an answer.
#[derive(Debug, Default)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The value of a column; absent where the user may not read it.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value.as_str())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = Fields;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a row")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((name, Text(value))) = map.next_entry::<String, Text>()? {
                    fields.push((name, value.into_owned()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

/// A raw value. The instance sends strings; a reference that comes as an object in spite of
/// `sysparm_exclude_reference_link` counts by its `value`, and its link is never followed.
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

/// Makes a row. What the engine decides by (id, state, version, times) must be readable: a column hidden from the
/// bridge's user would otherwise pass for an early time or an open state.
pub fn row(kind: Kind, connection: &Connection, fields: Fields, asked: &[Column]) -> Result<Row, Failure> {
    let mut row = Row::default();
    let mut seen = [false; 6];
    let mut values = BTreeMap::new();
    let mut version = None;
    for (name, value) in fields.0 {
        if STANDARD.contains(&name.as_str()) && asked.iter().any(|column| **column == *name) {
            values.insert(name.clone(), value.clone());
        }
        match name.as_str() {
            "sys_id" => {
                seen[0] = is_sys_id(&value);
                row.sys_id = value;
            }
            "number" => row.number = value,
            "sys_mod_count" => {
                version = value.parse().ok();
                seen[1] = version.is_some();
            }
            "sys_updated_by" => {
                seen[2] = true;
                row.updated_by = value;
            }
            "sys_updated_on" => {
                let at = date_time(&value);
                seen[3] = at.is_some();
                row.updated_on = at.unwrap_or_default();
            }
            "sys_created_on" => {
                let at = date_time(&value);
                seen[4] = at.is_some();
                row.created_on = at.unwrap_or_default();
            }
            _ if name == connection.state_column => {
                seen[5] = true;
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
    let hidden: Vec<&str> = needed.into_iter().zip(seen).filter(|(_, seen)| !seen).map(|(name, _)| name).collect();
    if !hidden.is_empty() {
        let columns = hidden.join(", ");
        let why = format!("the row came without a usable {columns}: may the bridge's user read them?");
        return Err(doubt(kind, true, Class::Transient, "columns_unreadable", &why));
    }
    row.mod_count = version.unwrap_or_default();
    row.values = values;
    Ok(row)
}

/// A raw date-time, `YYYY-MM-DD HH:MM:SS` in UTC, as Unix seconds.
pub fn date_time(value: &str) -> Option<i64> {
    let civil: jiff::civil::DateTime = value.parse().ok()?;
    jiff::tz::TimeZone::UTC.to_timestamp(civil).ok().map(jiff::Timestamp::as_second)
}

/// Compares a write's answer with what was sent. Identity and state must be what was sent; other differences are
/// warnings. The application has answered, so its transaction has ended, and a look at the row is conclusive.
pub fn check(kind: Kind, connection: &Connection, sent: &Request, row: &Row) -> Result<Vec<String>, Failure> {
    let differs = |code: &str, why: String| Err(doubt(kind, true, Class::Transient, code, &why));
    let fields = match sent {
        Request::Create { correlation, fields, .. } => {
            match row.values.get(&connection.correlation_column) {
                Some(stands) if stands == correlation => {}
                stands => {
                    let stands = stands.map_or("nothing readable", String::as_str);
                    return differs("correlation_differs", format!("sent {correlation:?}, the row has {stands:?}"));
                }
            }
            fields
        }
        Request::Update { sys_id, fields, .. } => {
            if row.sys_id != *sys_id {
                return differs("row_differs", format!("wrote to {sys_id}, the answer shows {}", row.sys_id));
            }
            fields
        }
        Request::Event { .. } | Request::Events { .. } | Request::Read { .. } | Request::Find { .. } => {
            return Ok(Vec::new());
        }
    };
    let mut warnings = Vec::new();
    for (column, value) in fields {
        if JOURNALS.contains(&&**column) || **column == *connection.journal_column {
            continue;
        }
        let Some(stands) = row.values.get(&**column) else { continue };
        if stands == value {
            continue;
        }
        if **column == *connection.state_column {
            return differs("state_differs", format!("sent {column} {value:?}, the row has {stands:?}"));
        }
        let (sent, stands) = (bounded(value, SHOWN_VALUE), bounded(stands, SHOWN_VALUE));
        warnings.push(format!("{column}: sent {sent:?}, stands {stands:?}"));
    }
    Ok(warnings)
}
