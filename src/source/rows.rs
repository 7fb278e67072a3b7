//! What was last published of each row, and whether a version that a poll returns is news.
//!
//! The overlap makes the poller see most versions many times, and a read replica may return an older version after a
//! newer one. The state kept here decides: it is the `rows` topic, held in memory. All rows of the route are kept, for
//! as long as they exist: at about 1 KB a row with the default watched columns, a million rows are 1 GB. A route with
//! more than that needs a filter.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::timestamp;

/// A version of a row as a poll returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `sys_id`.
    pub sys_id: String,
    /// `number`, where the table has one.
    pub number: Option<String>,
    /// `sys_class_name`; the polled table where that is not readable.
    pub class: String,
    /// `sys_mod_count`.
    pub mod_count: u64,
    /// `sys_created_on`, Unix seconds.
    pub created_on: i64,
    /// `sys_updated_on`, Unix seconds.
    pub updated_on: i64,
    /// `sys_updated_by`, a user name.
    pub updated_by: String,
    /// `correlation_id`; none where it is empty.
    pub correlation: Option<String>,
    /// Watched columns that were readable.
    pub values: BTreeMap<String, String>,
}

/// A row without which nothing can be decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a row of {table} came without a usable {column} ({value:?}): let the account read the sys_ columns of the table"
)]
pub struct UnusableRow {
    /// The table.
    pub table: String,
    /// The column.
    pub column: &'static str,
    /// What came.
    pub value: String,
}

impl Version {
    /// Reads a row of raw values.
    ///
    /// # Errors
    /// Where a column that versions are told apart by is missing or unreadable.
    pub fn read(row: &BTreeMap<String, String>, settings: &super::Settings) -> Result<Version, UnusableRow> {
        let get = |column: &str| row.get(column).map_or("", String::as_str);
        let bad = |column: &'static str| UnusableRow {
            table: settings.table.clone(),
            column,
            value: get(column).chars().take(40).collect(),
        };
        let some = |column: &str| Some(get(column).to_string()).filter(|v| !v.is_empty());
        if !super::window::is_sys_id(get("sys_id")) {
            return Err(bad("sys_id"));
        }
        let ours = settings.correlation_display.as_deref().is_none_or(|d| get("correlation_display").starts_with(d));
        Ok(Version {
            sys_id: get("sys_id").to_string(),
            number: some("number"),
            class: some("sys_class_name").unwrap_or_else(|| settings.table.clone()),
            mod_count: get("sys_mod_count").parse().map_err(|_| bad("sys_mod_count"))?,
            created_on: timestamp::parse(get("sys_created_on")).ok_or_else(|| bad("sys_created_on"))?,
            updated_on: timestamp::parse(get("sys_updated_on")).ok_or_else(|| bad("sys_updated_on"))?,
            updated_by: get("sys_updated_by").to_string(),
            correlation: some("correlation_id").filter(|_| ours),
            values: settings
                .watched
                .iter()
                .filter_map(|column| Some((column.clone(), row.get(column)?.clone())))
                .collect(),
        })
    }
}

/// What is remembered of a row: a value of the `rows` topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowState {
    /// `sys_mod_count` of the last version published, or left out as an echo.
    #[serde(rename = "m")]
    pub mod_count: u64,
    /// Its `sys_created_on`, Unix seconds.
    #[serde(rename = "c")]
    pub created_on: i64,
    /// Its `sys_updated_on`, Unix seconds.
    #[serde(rename = "u")]
    pub updated_on: i64,
    /// The row's number.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// Its class, where that is not the polled table.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Its correlation.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// Watched columns.
    #[serde(rename = "v", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// True where an earlier row had the same sys_id: its versions count from 0 again, so their ids need more.
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    pub recreated: bool,
    /// When the row was deleted, Unix seconds. Kept for the length of the overlap, so that a stale read cannot bring
    /// the row back; then a tombstone follows.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<i64>,
}

impl RowState {
    /// The state of a row that was deleted at `at` before any poll saw it: every version up to that second is stale,
    /// whenever the row was created.
    pub fn unseen(at: i64) -> Self {
        Self {
            mod_count: 0,
            created_on: i64::MAX,
            updated_on: at,
            number: None,
            class: None,
            correlation: None,
            values: BTreeMap::new(),
            recreated: false,
            deleted: None,
        }
    }
}

/// What a version is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Never heard of the row.
    New,
    /// Another row under a known sys_id.
    Recreated,
    /// A later version; so many between were not seen.
    Later {
        /// Versions between.
        skipped: u64,
    },
    /// Known already, or an older one from a replica that is behind.
    Stale,
}

/// Compares a version with what is known of its row.
///
/// Another `sys_created_on` is another row, but which of the two is the younger is told by the stamps alone: a
/// replica that is behind may return the old row after the new one.
pub fn judge(version: &Version, known: Option<&RowState>) -> Verdict {
    let Some(known) = known else { return Verdict::New };
    if version.created_on != known.created_on {
        let younger = (version.updated_on, version.created_on) > (known.updated_on, known.created_on);
        return if younger { Verdict::Recreated } else { Verdict::Stale };
    }
    match version.mod_count.checked_sub(known.mod_count) {
        None | Some(0) => Verdict::Stale,
        Some(_) if known.deleted.is_some_and(|at| version.updated_on <= at) => Verdict::Stale,
        Some(n) => Verdict::Later { skipped: n - 1 },
    }
}

/// All that is remembered, and the marks of journal entries and deletes that were published within the overlap.
#[derive(Debug, Default)]
pub struct Memory {
    rows: HashMap<String, RowState>,
    marks: BTreeSet<Mark>,
    deleted: BTreeSet<(i64, String)>,
}

/// An insert-only row that was published: it must not be again while the overlap can return it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Its `sys_created_on`, Unix seconds.
    pub at: i64,
    /// Which table it is of.
    pub kind: MarkKind,
    /// Its sys_id.
    pub sys_id: String,
}

/// The tables that are insert-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarkKind {
    /// `sys_journal_field`.
    Journal,
    /// `sys_audit_delete`.
    Delete,
}

/// One record of the `rows` topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateRecord {
    /// A row's state; `None` is its tombstone.
    Row(String, Option<Box<RowState>>),
    /// A mark; false is its tombstone.
    Mark(Mark, bool),
}

impl Memory {
    /// What is known of a row.
    pub fn row(&self, sys_id: &str) -> Option<&RowState> {
        self.rows.get(sys_id)
    }

    /// True where the mark stands.
    pub fn marked(&self, mark: &Mark) -> bool {
        self.marks.contains(mark)
    }

    /// Rows remembered.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True where no row is remembered.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The classes of the rows remembered, other than the polled table; at most 50, as they go into a query.
    pub fn classes(&self) -> BTreeSet<String> {
        let mut classes = BTreeSet::new();
        for class in self.rows.values().filter_map(|r| r.class.as_ref()) {
            if classes.len() < 50 && !classes.contains(class) {
                classes.insert(class.clone());
            }
        }
        classes
    }

    /// Takes in a record that is safely in the topic.
    pub fn apply(&mut self, memo: StateRecord) {
        match memo {
            StateRecord::Row(sys_id, state) => {
                if let Some(at) = self.rows.get(&sys_id).and_then(|r| r.deleted) {
                    self.deleted.remove(&(at, sys_id.clone()));
                }
                match state {
                    None => drop(self.rows.remove(&sys_id)),
                    Some(state) => {
                        if let Some(at) = state.deleted {
                            self.deleted.insert((at, sys_id.clone()));
                        }
                        self.rows.insert(sys_id, *state);
                    }
                }
            }
            StateRecord::Mark(mark, true) => drop(self.marks.insert(mark)),
            StateRecord::Mark(mark, false) => drop(self.marks.remove(&mark)),
        }
    }

    /// All of it, as records.
    pub fn into_memos(self) -> impl Iterator<Item = StateRecord> {
        let marks = self.marks.into_iter().map(|mark| StateRecord::Mark(mark, true));
        self.rows.into_iter().map(|(sys_id, state)| StateRecord::Row(sys_id, Some(Box::new(state)))).chain(marks)
    }

    /// Tombstones for the marks of `kind` that no sweep from `from` on can return any more.
    pub fn expired_marks(&self, kind: MarkKind, from: i64) -> Vec<StateRecord> {
        self.marks
            .iter()
            .take_while(|m| m.at < from)
            .filter(|m| m.kind == kind)
            .map(|m| StateRecord::Mark(m.clone(), false))
            .collect()
    }

    /// Tombstones for the rows that were deleted before `from`.
    pub fn expired_rows(&self, from: i64) -> Vec<StateRecord> {
        self.deleted.iter().take_while(|(at, _)| *at < from).map(|(_, id)| StateRecord::Row(id.clone(), None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(mod_count: u64, created_on: i64, updated_on: i64) -> RowState {
        RowState {
            mod_count,
            created_on,
            updated_on,
            number: None,
            class: None,
            correlation: None,
            values: BTreeMap::new(),
            recreated: false,
            deleted: None,
        }
    }

    fn version(mod_count: u64, created_on: i64, updated_on: i64) -> Version {
        Version {
            sys_id: "a".into(),
            number: None,
            class: "incident".into(),
            mod_count,
            created_on,
            updated_on,
            updated_by: "ada".into(),
            correlation: None,
            values: BTreeMap::new(),
        }
    }

    #[test]
    fn a_replica_that_is_behind_brings_nothing_back() {
        assert_eq!(judge(&version(3, 10, 20), None), Verdict::New);
        assert_eq!(judge(&version(3, 10, 20), Some(&state(3, 10, 20))), Verdict::Stale);
        assert_eq!(judge(&version(2, 10, 15), Some(&state(3, 10, 20))), Verdict::Stale);
        assert_eq!(judge(&version(6, 10, 30), Some(&state(3, 10, 20))), Verdict::Later { skipped: 2 });
        // The row was deleted and made anew with the same sys_id.
        assert_eq!(judge(&version(0, 25, 25), Some(&state(3, 10, 20))), Verdict::Recreated);
        assert_eq!(judge(&version(3, 10, 20), Some(&state(0, 25, 25))), Verdict::Stale);
        let deleted = RowState { deleted: Some(22), ..state(3, 10, 20) };
        assert_eq!(judge(&version(3, 10, 20), Some(&deleted)), Verdict::Stale);
        assert_eq!(judge(&version(4, 10, 21), Some(&deleted)), Verdict::Stale);
    }

    #[test]
    fn marks_and_deleted_rows_are_forgotten_only_when_no_sweep_can_return_them() {
        let mut memory = Memory::default();
        let mark = |at, id: &str| Mark { at, kind: MarkKind::Journal, sys_id: id.into() };
        memory.apply(StateRecord::Mark(mark(10, "a"), true));
        memory.apply(StateRecord::Mark(mark(11, "b"), true));
        memory.apply(StateRecord::Row("r".into(), Some(Box::new(RowState { deleted: Some(10), ..state(1, 1, 1) }))));
        assert_eq!(memory.expired_marks(MarkKind::Journal, 11), vec![StateRecord::Mark(mark(10, "a"), false)]);
        assert!(memory.expired_marks(MarkKind::Delete, 99).is_empty() && memory.expired_rows(10).is_empty());
        for memo in memory.expired_rows(11) {
            memory.apply(memo);
        }
        assert!(memory.is_empty() && memory.expired_rows(99).is_empty());
    }
}
