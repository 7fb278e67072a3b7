//! A change of a ServiceNow row as it is published: the `servicenow-change/1` event of `schemas/`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What happened to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// First time this row was seen.
    Insert,
    /// A later version.
    Update,
    /// The row is gone.
    Delete,
}

/// Who made a version of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOrigin {
    /// A person.
    Person,
    /// This bridge, and nobody else since the last version seen.
    Bridge,
    /// Another integration user named in the configuration.
    Integration,
    /// The bridge wrote last, but versions in between were not seen: a person's change may hide behind it.
    Mixed,
}

/// A journal entry that came with the change.
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

/// From and to of one watched field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Value before, where the last published version is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Value now.
    pub to: String,
}

/// One version of a row, or one journal entry of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Always `servicenow-change/1`.
    pub schema: String,
    /// `<instance>:<table>:<sys_id>:<sys_mod_count>`; for a journal entry `<instance>:<table>:<sys_id>:journal:<sys_id>`.
    pub change_id: String,
    /// Name of the instance in the configuration.
    pub instance: String,
    /// Real class of the row (`sys_class_name`).
    pub table: String,
    /// The row.
    pub sys_id: String,
    /// Its number, where the table has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// insert, update or delete.
    pub operation: Operation,
    /// created, state_changed, acknowledged, resolved, closed, reopened, canceled, assigned, priority_changed,
    /// commented, work_noted, field_changed, deleted.
    pub kinds: Vec<String>,
    /// `sys_updated_on`, RFC 3339, UTC.
    pub occurred_at: String,
    /// User name of who wrote this version.
    pub updated_by: String,
    /// Version of the row.
    pub sys_mod_count: u64,
    /// Versions between the last published one and this that no poll saw.
    #[serde(default)]
    pub versions_skipped: u64,
    /// Who made it.
    pub origin: ChangeOrigin,
    /// Watched fields as last published; empty for a first sight.
    pub before: BTreeMap<String, String>,
    /// Watched fields now.
    pub after: BTreeMap<String, String>,
    /// Watched fields that differ.
    pub changed_fields: BTreeMap<String, FieldChange>,
    /// The alert's key, where the row carries one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The journal entry, where the change is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<JournalNote>,
}
