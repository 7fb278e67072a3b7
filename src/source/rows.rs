//! The last published state of each row, and whether a version that a poll returns is new.
//!
//! Because of the lookback most versions are read many times, and a read replica may return an older version after a
//! newer one. The state kept here decides. It is the content of the `rows` topic, held in memory, for all rows of the
//! route, for as long as they exist. With about 1 KB per row for the default watched columns, a million rows take 1
//! GB. A route with more rows needs a filter.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::timestamp;

/// A version of a row, as a poll returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub sys_id: String,
    /// `number`, if the table has one.
    pub number: Option<String>,
    /// `sys_class_name`, or the polled table if that column cannot be read.
    pub class: String,
    pub mod_count: u64,
    /// In Unix seconds.
    pub created_on: i64,
    /// In Unix seconds.
    pub updated_on: i64,
    /// A user name.
    pub updated_by: String,
    /// `correlation_id`; `None` if it is empty, or if the row's `correlation_display` is not the bridge's.
    pub correlation: Option<String>,
    /// Watched columns that the account may read.
    pub values: BTreeMap<String, String>,
}

/// A row that lacks a column that decisions depend on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a row of {table} has no usable {column} ({value:?}): let the bridge's user read the sys_ columns of the table"
)]
pub struct UnusableRow {
    pub table: String,
    pub column: &'static str,
    /// The value that was returned, shortened to 40 characters.
    pub value: String,
}

impl Version {
    /// Reads a row of raw values.
    ///
    /// # Errors
    /// If a column that identifies the version is missing or unreadable.
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
        let is_ours = settings.correlation_display.as_deref().is_none_or(|d| get("correlation_display").starts_with(d));
        Ok(Version {
            sys_id: get("sys_id").to_string(),
            number: some("number"),
            class: some("sys_class_name").unwrap_or_else(|| settings.table.clone()),
            mod_count: get("sys_mod_count").parse().map_err(|_| bad("sys_mod_count"))?,
            created_on: timestamp::parse(get("sys_created_on")).ok_or_else(|| bad("sys_created_on"))?,
            updated_on: timestamp::parse(get("sys_updated_on")).ok_or_else(|| bad("sys_updated_on"))?,
            updated_by: get("sys_updated_by").to_string(),
            correlation: some("correlation_id").filter(|_| is_ours),
            values: settings
                .watched
                .iter()
                .filter_map(|column| Some((column.clone(), row.get(column)?.clone())))
                .collect(),
        })
    }
}

/// The last known state of a row: a value of the `rows` topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowState {
    /// `sys_mod_count` of the last version that was published, or skipped as an echo.
    #[serde(rename = "m")]
    pub mod_count: u64,
    /// `sys_created_on`, in Unix seconds.
    #[serde(rename = "c")]
    pub created_on: i64,
    /// `sys_updated_on`, in Unix seconds.
    #[serde(rename = "u")]
    pub updated_on: i64,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// The row's class; `None` if it is the polled table.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// Watched columns.
    #[serde(rename = "v", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// True if an earlier row had the same sys_id: the versions count from 0 again, so the change ids contain more.
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    pub recreated: bool,
    /// When the row was deleted, in Unix seconds. The state is kept for the lookback, so that a stale read cannot
    /// restore the row. Then a tombstone removes it.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<i64>,
}

impl RowState {
    /// The state of a row that was deleted at `at` before any poll saw it: every version up to that second is stale,
    /// no matter when the row was created.
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

/// A version compared with the known state of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionStatus {
    /// The row was never seen.
    New,
    /// Another row with a known sys_id.
    Recreated,
    /// A later version.
    Later {
        /// Number of versions between that were not seen.
        skipped: u64,
    },
    /// The known version, or an older one from a replica that lags.
    Stale,
}

/// Compares a version with the known state of its row.
///
/// Another `sys_created_on` means another row. Only the timestamps decide which of the two is newer: a lagging
/// replica may return the old row after the new one.
pub fn compare_version(version: &Version, known: Option<&RowState>) -> VersionStatus {
    let Some(known) = known else { return VersionStatus::New };
    if version.created_on != known.created_on {
        let newer = (version.updated_on, version.created_on) > (known.updated_on, known.created_on);
        return if newer { VersionStatus::Recreated } else { VersionStatus::Stale };
    }
    match version.mod_count.checked_sub(known.mod_count) {
        None | Some(0) => VersionStatus::Stale,
        Some(_) if known.deleted.is_some_and(|at| version.updated_on <= at) => VersionStatus::Stale,
        Some(n) => VersionStatus::Later { skipped: n - 1 },
    }
}

/// The last known state of all rows, and the journal entries and deletes that were published within the lookback.
#[derive(Debug, Default)]
pub struct PublishedState {
    rows: HashMap<String, RowState>,
    inserted_rows: BTreeSet<InsertedRow>,
    deleted: BTreeSet<(i64, String)>,
}

/// A row of an insert-only table that was published. It must not be published again while the lookback can return it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InsertedRow {
    /// `sys_created_on`, in Unix seconds.
    pub at: i64,
    pub kind: InsertOnlyTable,
    pub sys_id: String,
}

/// The insert-only tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InsertOnlyTable {
    /// `sys_journal_field`.
    Journal,
    /// `sys_audit_delete`.
    Delete,
}

/// A record of the `rows` topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateRecord {
    /// The sys_id of a row and its state; `None` is its tombstone.
    Row(String, Option<Box<RowState>>),
    /// A published row of an insert-only table; `present: false` is its tombstone.
    Inserted { row: InsertedRow, present: bool },
}

impl PublishedState {
    /// The known state of a row.
    pub fn row(&self, sys_id: &str) -> Option<&RowState> {
        self.rows.get(sys_id)
    }

    /// True if this row of an insert-only table was published.
    pub fn is_published(&self, inserted: &InsertedRow) -> bool {
        self.inserted_rows.contains(inserted)
    }

    /// Number of rows whose state is known.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if no row is known.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The classes of the known rows other than the polled table; at most 50, because they go into a query.
    pub fn classes(&self) -> BTreeSet<String> {
        let mut classes = BTreeSet::new();
        for class in self.rows.values().filter_map(|r| r.class.as_ref()) {
            if classes.len() < 50 && !classes.contains(class) {
                classes.insert(class.clone());
            }
        }
        classes
    }

    /// Applies a record that is safely in the topic.
    pub fn apply(&mut self, record: StateRecord) {
        match record {
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
            StateRecord::Inserted { row, present: true } => drop(self.inserted_rows.insert(row)),
            StateRecord::Inserted { row, present: false } => drop(self.inserted_rows.remove(&row)),
        }
    }

    /// The whole state as records.
    pub fn into_records(self) -> impl Iterator<Item = StateRecord> {
        let inserted_rows = self.inserted_rows.into_iter().map(|row| StateRecord::Inserted { row, present: true });
        self.rows
            .into_iter()
            .map(|(sys_id, state)| StateRecord::Row(sys_id, Some(Box::new(state))))
            .chain(inserted_rows)
    }

    /// Tombstones for the rows of an insert-only table that no sweep starting at `from` can return any more.
    pub fn expired_inserted_rows(&self, kind: InsertOnlyTable, from: i64) -> Vec<StateRecord> {
        self.inserted_rows
            .iter()
            .take_while(|m| m.at < from)
            .filter(|m| m.kind == kind)
            .map(|row| StateRecord::Inserted { row: row.clone(), present: false })
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
    fn a_lagging_replica_restores_nothing() {
        assert_eq!(compare_version(&version(3, 10, 20), None), VersionStatus::New);
        assert_eq!(compare_version(&version(3, 10, 20), Some(&state(3, 10, 20))), VersionStatus::Stale);
        assert_eq!(compare_version(&version(2, 10, 15), Some(&state(3, 10, 20))), VersionStatus::Stale);
        assert_eq!(compare_version(&version(6, 10, 30), Some(&state(3, 10, 20))), VersionStatus::Later { skipped: 2 });
        // The row was deleted and recreated with the same sys_id.
        assert_eq!(compare_version(&version(0, 25, 25), Some(&state(3, 10, 20))), VersionStatus::Recreated);
        assert_eq!(compare_version(&version(3, 10, 20), Some(&state(0, 25, 25))), VersionStatus::Stale);
        let deleted = RowState { deleted: Some(22), ..state(3, 10, 20) };
        assert_eq!(compare_version(&version(3, 10, 20), Some(&deleted)), VersionStatus::Stale);
        assert_eq!(compare_version(&version(4, 10, 21), Some(&deleted)), VersionStatus::Stale);
    }

    #[test]
    fn inserted_and_deleted_rows_expire_only_when_no_sweep_can_return_them() {
        let mut published_state = PublishedState::default();
        let inserted = |at, id: &str| InsertedRow { at, kind: InsertOnlyTable::Journal, sys_id: id.into() };
        published_state.apply(StateRecord::Inserted { row: inserted(10, "a"), present: true });
        published_state.apply(StateRecord::Inserted { row: inserted(11, "b"), present: true });
        published_state
            .apply(StateRecord::Row("r".into(), Some(Box::new(RowState { deleted: Some(10), ..state(1, 1, 1) }))));
        assert_eq!(
            published_state.expired_inserted_rows(InsertOnlyTable::Journal, 11),
            vec![StateRecord::Inserted { row: inserted(10, "a"), present: false }]
        );
        assert!(
            published_state.expired_inserted_rows(InsertOnlyTable::Delete, 99).is_empty()
                && published_state.expired_rows(10).is_empty()
        );
        for record in published_state.expired_rows(11) {
            published_state.apply(record);
        }
        assert!(published_state.is_empty() && published_state.expired_rows(99).is_empty());
    }
}
