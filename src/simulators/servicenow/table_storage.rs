//! Rows and their indexes. A row stores only values that differ from the defaults, so that a million incidents fit in
//! memory.
//!
//! Each store has an index by sys_id, one by (`sys_updated_on`, `sys_id`) for keyset pagination, and equality indexes
//! for the few columns that lookups use. This module knows nothing of rights, rules or HTTP.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::columns::{CREATED, CREATOR, NUMBER, SYS_ID};
use super::schema::{Col, Schema, sys};
use super::time;

/// A version of a row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub sys_id: u128,
    pub table: usize,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub updated: i64,
    pub created_by: u32,
    pub updated_by: u32,
    pub mod_count: u32,
    /// The numeric part of `number`; 0 if the table has no numbers.
    pub number: u32,
    /// Values that differ from the default, in no order.
    values: Vec<(Col, Box<str>)>,
}

impl Row {
    pub fn new(table: usize, sys_id: u128, now: i64, by: u32) -> Self {
        Self {
            sys_id,
            table,
            created: now,
            updated: now,
            created_by: by,
            updated_by: by,
            mod_count: 0,
            number: 0,
            values: Vec::new(),
        }
    }

    fn stored(&self, col: Col) -> Option<&str> {
        self.values.iter().find(|(at, _)| *at == col).map(|(_, value)| &**value)
    }

    /// Whether both rows have the same values, apart from the system columns.
    pub fn same_values(&self, other: &Self) -> bool {
        self.table == other.table
            && self.values.len() == other.values.len()
            && self.values.iter().all(|(col, value)| other.stored(*col) == Some(value))
    }
}

/// The names of writers, each stored once, with the sys_id of the account.
#[derive(Debug, Default)]
pub(super) struct Actors {
    list: Vec<(Arc<str>, Option<u128>)>,
}

impl Actors {
    pub fn id(&mut self, name: &str) -> u32 {
        let at = self.list.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
            self.list.push((name.into(), None));
            self.list.len() - 1
        });
        u32::try_from(at).unwrap_or(0)
    }

    pub fn bind(&mut self, name: &str, sys_id: u128) {
        let id = self.id(name);
        if let Some(entry) = self.list.get_mut(id as usize) {
            entry.1 = Some(sys_id);
        }
    }

    pub fn name(&self, id: u32) -> &str {
        self.list.get(id as usize).map_or("", |(name, _)| name)
    }

    pub fn shared_name(&self, id: u32) -> Arc<str> {
        self.list.get(id as usize).map_or_else(|| "".into(), |(name, _)| name.clone())
    }

    pub fn sys_id(&self, id: u32) -> Option<u128> {
        self.list.get(id as usize).and_then(|(_, sys_id)| *sys_id)
    }
}

/// A row version that list queries do not see yet. Until `visible_at` they see the previous version, or no row.
#[derive(Debug)]
pub(super) struct DelayedVersion {
    /// Unix milliseconds.
    pub visible_at: i64,
    /// `None` for a new row.
    pub previous: Option<Row>,
}

/// Row positions by collation key.
type EqualityIndex = HashMap<Box<str>, Vec<u32>>;

/// All rows of a hierarchy of tables.
#[derive(Debug, Default)]
pub(super) struct Store {
    rows: Vec<Option<Row>>,
    by_sys_id: HashMap<u128, u32>,
    by_update: BTreeSet<(i64, u128, u32)>,
    equal: Vec<(Col, EqualityIndex)>,
    /// Versions that list queries do not see yet, by row position.
    pub delayed: HashMap<u32, DelayedVersion>,
}

impl Store {
    pub fn with_indexes(columns: &[Col]) -> Self {
        Self { equal: columns.iter().map(|col| (*col, HashMap::new())).collect(), ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.by_sys_id.len()
    }

    pub fn get(&self, at: u32) -> Option<&Row> {
        self.rows.get(at as usize)?.as_ref()
    }

    pub fn find(&self, sys_id: u128) -> Option<u32> {
        self.by_sys_id.get(&sys_id).copied()
    }

    pub fn row(&self, sys_id: u128) -> Option<&Row> {
        self.get(self.find(sys_id)?)
    }

    /// Returns the positions of rows updated at or after a second, in order of (`sys_updated_on`, `sys_id`).
    pub fn updated_since(&self, updated: i64) -> impl Iterator<Item = u32> + '_ {
        self.by_update.range((updated, 0, 0)..).map(|(_, _, at)| *at)
    }

    /// Returns all rows with their positions, in order of creation.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Row)> {
        (0u32..).zip(&self.rows).filter_map(|(at, row)| Some((at, row.as_ref()?)))
    }

    pub fn is_indexed(&self, col: Col) -> bool {
        self.equal.iter().any(|(at, _)| *at == col)
    }

    /// Returns the positions of rows whose indexed column has the collation key.
    pub fn equal(&self, col: Col, key: &str) -> &[u32] {
        let index = self.equal.iter().find(|(at, _)| *at == col);
        index.and_then(|(_, index)| index.get(key)).map_or(&[], Vec::as_slice)
    }

    pub fn insert(&mut self, schema: &Schema, mut row: Row) -> u32 {
        row.values.shrink_to_fit();
        let at = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.by_sys_id.insert(row.sys_id, at);
        self.by_update.insert((row.updated, row.sys_id, at));
        for (col, index) in &mut self.equal {
            let key = index_key(schema, &row, *col);
            if !key.is_empty() {
                index.entry(key.into()).or_default().push(at);
            }
        }
        self.rows.push(Some(row));
        at
    }

    pub fn replace(&mut self, schema: &Schema, at: u32, row: Row) {
        let Some(old) = self.rows.get_mut(at as usize).and_then(Option::take) else { return };
        if old.updated != row.updated {
            self.by_update.remove(&(old.updated, old.sys_id, at));
            self.by_update.insert((row.updated, row.sys_id, at));
        }
        for (col, index) in &mut self.equal {
            let (before, after) = (index_key(schema, &old, *col), index_key(schema, &row, *col));
            if before != after {
                remove_from_index(index, &before, at);
                if !after.is_empty() {
                    index.entry(after.into()).or_default().push(at);
                }
            }
        }
        if let Some(slot) = self.rows.get_mut(at as usize) {
            *slot = Some(row);
        }
    }

    pub fn remove(&mut self, schema: &Schema, at: u32) -> Option<Row> {
        let row = self.rows.get_mut(at as usize)?.take()?;
        self.by_sys_id.remove(&row.sys_id);
        self.by_update.remove(&(row.updated, row.sys_id, at));
        self.delayed.remove(&at);
        for (col, index) in &mut self.equal {
            remove_from_index(index, &index_key(schema, &row, *col), at);
        }
        Some(row)
    }
}

fn remove_from_index(index: &mut HashMap<Box<str>, Vec<u32>>, key: &str, at: u32) {
    if let Some(list) = index.get_mut(key) {
        list.retain(|other| *other != at);
        if list.is_empty() {
            index.remove(key);
        }
    }
}

/// Returns the index key of a column. That of `number` is computed, as its value is.
fn index_key(schema: &Schema, row: &Row, col: Col) -> String {
    match row.stored(col) {
        Some(value) => collation_key(value),
        None if schema.default(row.table, col) == NUMBER => collation_key(&number(schema, row)),
        None => String::new(),
    }
}

/// Returns the form in which values are compared: without case and trailing blanks, like the database's collation.
pub(super) fn collation_key(value: &str) -> String {
    let value = value.trim_end_matches(' ');
    if value.is_ascii() { value.to_ascii_lowercase() } else { value.to_lowercase() }
}

pub(super) fn hex(sys_id: u128) -> String {
    format!("{sys_id:032x}")
}

/// Parses a sys_id: exactly 32 lower-case hexadecimal digits.
pub(super) fn parse_sys_id(text: &str) -> Option<u128> {
    let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    valid.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

fn number(schema: &Schema, row: &Row) -> String {
    format!("{}{:07}", schema.tables[row.table].prefix, row.number)
}

/// Returns the raw value of a column.
pub(super) fn raw<'a>(schema: &Schema, actors: &'a Actors, row: &'a Row, col: Col) -> Cow<'a, str> {
    match col {
        sys::ID => return hex(row.sys_id).into(),
        sys::CREATED_ON => return time::format(row.created).into(),
        sys::CREATED_BY => return actors.name(row.created_by).into(),
        sys::UPDATED_ON => return time::format(row.updated).into(),
        sys::UPDATED_BY => return actors.name(row.updated_by).into(),
        sys::MOD_COUNT => return row.mod_count.to_string().into(),
        sys::CLASS => return schema.tables[row.table].name.into(),
        _ => {}
    }
    if let Some(value) = row.stored(col) {
        return value.into();
    }
    match schema.default(row.table, col) {
        CREATED => time::format(row.created).into(),
        CREATOR => actors.sys_id(row.created_by).map(hex).unwrap_or_default().into(),
        NUMBER => number(schema, row).into(),
        SYS_ID => hex(row.sys_id).into(),
        value => value.into(),
    }
}

/// Sets a column other than the system columns. A value equal to a constant default is not stored.
pub(super) fn set(schema: &Schema, row: &mut Row, col: Col, value: &str) {
    let default = schema.default(row.table, col);
    let found = row.values.iter().position(|(at, _)| *at == col);
    match (found, value == default) {
        (Some(at), true) => {
            row.values.swap_remove(at);
        }
        (None, true) => {}
        (Some(at), false) => {
            if let Some(slot) = row.values.get_mut(at)
                && *slot.1 != *value
            {
                slot.1 = value.into();
            }
        }
        (None, false) => row.values.push((col, value.into())),
    }
}
