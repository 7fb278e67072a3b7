//! A published change of a ServiceNow row: the `servicenow-change/1` event of `schemas/`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What happened to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The source sees the row for the first time.
    Insert,
    /// A later version.
    Update,
    /// The row was deleted.
    Delete,
}

/// Who made a version of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOrigin {
    /// A user.
    User,
    /// This bridge, and nobody else since the last published version.
    Bridge,
    /// Another integration user, named in the configuration.
    Integration,
    /// The bridge wrote last, but versions in between were not seen: one of them may be a user's.
    Mixed,
}

/// A published journal entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalNote {
    /// sys_id of the `sys_journal_field` row.
    pub sys_id: String,
    /// `work_note` or `comment`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub body: String,
    /// User name of the author.
    pub author: String,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// The old and the new value of one watched field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The old value, if the last published version is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The new value.
    pub to: String,
}

/// One version of a row, or one journal entry of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Always `servicenow-change/1`.
    pub schema: String,
    /// `<instance>:<table>:<sys_id>:<sys_mod_count>`; for a journal entry
    /// `<instance>:<table>:<sys_id>:journal:<sys_id>`.
    pub change_id: String,
    /// Name of the instance in the configuration.
    pub instance: String,
    /// Class of the row (`sys_class_name`).
    pub table: String,
    /// sys_id of the row.
    pub sys_id: String,
    /// Number of the row, if the table has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// insert, update or delete.
    pub operation: Operation,
    /// created, state_changed, acknowledged, resolved, closed, reopened, canceled, assigned, priority_changed,
    /// commented, work_noted, field_changed, deleted.
    pub kinds: Vec<String>,
    /// `sys_updated_on`, RFC 3339, UTC.
    pub occurred_at: String,
    /// Name of the user who wrote this version.
    pub updated_by: String,
    /// Version number of the row.
    pub sys_mod_count: u64,
    /// How many versions between the last published one and this one no poll saw.
    #[serde(default)]
    pub versions_skipped: u64,
    /// Who made the change.
    pub origin: ChangeOrigin,
    /// Watched fields as last published; empty for the first published version.
    pub before: BTreeMap<String, String>,
    /// Watched fields in this version.
    pub after: BTreeMap<String, String>,
    /// Watched fields that differ.
    pub changed_fields: BTreeMap<String, FieldChange>,
    /// The alert's key, if the row has a correlation of the bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The journal entry, if the change is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<JournalNote>,
}
