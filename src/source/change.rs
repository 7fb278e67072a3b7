//! Turns a version of a row, a journal entry or a delete into the change event that is published.
//!
//! An *echo* is a version that the bridge wrote and that contains no change of anybody else: it was written by the
//! bridge's user, and is exactly one above the last known version (or version 0 of a row that was never seen). If the
//! bridge wrote the last version but versions between were not seen, the differences may contain a user's change:
//! such a version is `mixed`, and is published.

use std::collections::BTreeMap;

use super::Settings;
use super::rows::{RowState, Version, VersionStatus};
use super::timestamp;
use crate::model::Phase;
use crate::model::change::{Change, ChangeOrigin, FieldChange, JournalNote, Operation};

const SCHEMA: &str = "servicenow-change/1";

/// The record key of a row's changes. It does not change with the row's class, so the row's changes stay in order.
pub fn key(settings: &Settings, sys_id: &str) -> String {
    format!("{}:{}:{sys_id}", settings.instance, settings.table)
}

/// Who made a version.
pub fn origin(settings: &Settings, version: &Version, status: VersionStatus) -> ChangeOrigin {
    let is_next_version = match status {
        VersionStatus::New | VersionStatus::Recreated => version.mod_count == 0,
        VersionStatus::Later { skipped } => skipped == 0,
        VersionStatus::Stale => false,
    };
    match author(settings, &version.updated_by) {
        ChangeOrigin::Bridge if !is_next_version => ChangeOrigin::Mixed,
        origin => origin,
    }
}

fn author(settings: &Settings, user: &str) -> ChangeOrigin {
    // The instance and its database compare user names without regard to case.
    if user.eq_ignore_ascii_case(&settings.bridge_user) {
        ChangeOrigin::Bridge
    } else if settings.integrations.iter().any(|i| i.eq_ignore_ascii_case(user)) {
        ChangeOrigin::Integration
    } else {
        ChangeOrigin::User
    }
}

/// The change that a version contains. `known` is the row's state before it. `first_started` is the instance's clock
/// when the route first started: a row that was created before and never seen is not "created".
pub fn version_change(
    settings: &Settings,
    version: &Version,
    status: VersionStatus,
    known: Option<&RowState>,
    first_started: i64,
) -> Change {
    let known = known.filter(|_| matches!(status, VersionStatus::Later { .. }));
    let (operation, skipped, newly_created) = match status {
        VersionStatus::Later { skipped } => (Operation::Update, skipped, false),
        _ => {
            let newly_created = version.mod_count == 0 || version.created_on >= first_started;
            (Operation::Insert, if newly_created { version.mod_count } else { 0 }, newly_created)
        }
    };
    let before = known.map(|k| k.values.clone()).unwrap_or_default();
    let changed_fields = match known {
        Some(_) => differences(&before, &version.values),
        None => BTreeMap::new(),
    };
    let kinds = match known {
        Some(_) => kinds_of_update(settings, &changed_fields),
        None => kinds_of_insert(settings, version, newly_created),
    };
    let recreated = status == VersionStatus::Recreated || known.is_some_and(|k| k.recreated);
    Change {
        schema: SCHEMA.into(),
        change_id: version_id(settings, version, recreated),
        instance: settings.instance.clone(),
        table: version.class.clone(),
        sys_id: version.sys_id.clone(),
        number: version.number.clone(),
        operation,
        kinds,
        occurred_at: timestamp::to_rfc3339(version.updated_on),
        updated_by: version.updated_by.clone(),
        sys_mod_count: version.mod_count,
        versions_skipped: skipped,
        origin: origin(settings, version, status),
        before,
        after: version.values.clone(),
        changed_fields,
        correlation: version.correlation.clone(),
        note: None,
    }
}

fn version_id(settings: &Settings, version: &Version, recreated: bool) -> String {
    let id = format!("{}:{}", key(settings, &version.sys_id), version.mod_count);
    // A row recreated with an old sys_id counts its versions from 0 again.
    if recreated { format!("{id}:{}", timestamp::to_rfc3339(version.created_on)) } else { id }
}

fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> BTreeMap<String, FieldChange> {
    after
        .iter()
        .filter(|(column, to)| before.get(*column) != Some(to))
        .map(|(column, to)| (column.clone(), FieldChange { from: before.get(column).cloned(), to: to.clone() }))
        .collect()
}

fn kinds_of_update(settings: &Settings, changed: &BTreeMap<String, FieldChange>) -> Vec<String> {
    let mut kinds: Vec<&str> = Vec::new();
    for (column, change) in changed {
        match column.as_str() {
            c if c == settings.states.column => {
                kinds.push("state_changed");
                if let Some(from) = &change.from {
                    kinds.extend(transition(settings, settings.states.phase(from), &change.to));
                }
            }
            "assigned_to" | "assignment_group" => kinds.push("assigned"),
            "priority" | "impact" | "urgency" | "severity" => kinds.push("priority_changed"),
            _ => kinds.push("field_changed"),
        }
    }
    if kinds.is_empty() {
        // No watched column differs: another column changed, or a note was added.
        kinds.push("field_changed");
    }
    distinct(&kinds)
}

fn kinds_of_insert(settings: &Settings, version: &Version, newly_created: bool) -> Vec<String> {
    let state = version.values.get(&settings.states.column);
    let ended = |raw: &&String| matches!(settings.states.phase(raw), Phase::Resolved | Phase::Closed);
    let mut kinds = vec![if newly_created { "created" } else { "field_changed" }];
    // The previous state of an older row is unknown. That it is resolved or closed is published all the same.
    kinds.extend(state.filter(|raw| newly_created || ended(raw)).and_then(|raw| transition(settings, Phase::New, raw)));
    distinct(&kinds)
}

fn transition(settings: &Settings, from: Phase, to: &str) -> Option<&'static str> {
    match (from, settings.states.phase(to)) {
        (_, Phase::Closed) if settings.canceled.contains(to) => Some("canceled"),
        (_, Phase::Closed) => Some("closed"),
        (_, Phase::Resolved) => Some("resolved"),
        (Phase::Resolved | Phase::Closed, _) => Some("reopened"),
        (Phase::New, Phase::InProgress) => Some("acknowledged"),
        _ => None,
    }
}

fn distinct(kinds: &[&str]) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(kinds.len());
    for kind in kinds {
        if !out.iter().any(|k| k == kind) {
            out.push((*kind).to_string());
        }
    }
    out
}

/// The state of a row after a version of it.
pub fn state_after(
    settings: &Settings,
    version: &Version,
    status: VersionStatus,
    known: Option<&RowState>,
) -> RowState {
    RowState {
        mod_count: version.mod_count,
        created_on: version.created_on,
        updated_on: version.updated_on,
        number: version.number.clone(),
        class: Some(version.class.clone()).filter(|c| *c != settings.table),
        correlation: version.correlation.clone(),
        values: version.values.clone(),
        recreated: status == VersionStatus::Recreated || known.is_some_and(|k| k.recreated),
        deleted: None,
    }
}

/// The change that a journal entry is. It contains the state of the entry's row, which it does not change.
pub fn note_change(settings: &Settings, sys_id: &str, row: &RowState, note: JournalNote) -> Change {
    let kind = if note.kind == "comment" { "commented" } else { "work_noted" };
    Change {
        change_id: format!("{}:journal:{}", key(settings, sys_id), note.sys_id),
        operation: Operation::Update,
        kinds: vec![kind.into()],
        occurred_at: note.created_at.clone(),
        updated_by: note.author.clone(),
        origin: author(settings, &note.author),
        before: row.values.clone(),
        after: row.values.clone(),
        note: Some(note),
        ..base_change(settings, sys_id, row)
    }
}

/// The change that a delete is. A delete by the bridge's user is `mixed`, never an echo: the row may have had
/// versions that nobody read.
pub fn delete_change(settings: &Settings, sys_id: &str, row: &RowState, audit: &str, by: &str, at: i64) -> Change {
    Change {
        change_id: format!("{}:deleted:{audit}", key(settings, sys_id)),
        operation: Operation::Delete,
        kinds: vec!["deleted".into()],
        occurred_at: timestamp::to_rfc3339(at),
        updated_by: by.into(),
        origin: match author(settings, by) {
            ChangeOrigin::Bridge => ChangeOrigin::Mixed,
            origin => origin,
        },
        before: row.values.clone(),
        ..base_change(settings, sys_id, row)
    }
}

fn base_change(settings: &Settings, sys_id: &str, row: &RowState) -> Change {
    Change {
        schema: SCHEMA.into(),
        change_id: String::new(),
        instance: settings.instance.clone(),
        table: row.class.clone().unwrap_or_else(|| settings.table.clone()),
        sys_id: sys_id.into(),
        number: row.number.clone(),
        operation: Operation::Update,
        kinds: Vec::new(),
        occurred_at: String::new(),
        updated_by: String::new(),
        sys_mod_count: row.mod_count,
        versions_skipped: 0,
        origin: ChangeOrigin::User,
        before: BTreeMap::new(),
        after: BTreeMap::new(),
        changed_fields: BTreeMap::new(),
        correlation: row.correlation.clone(),
        note: None,
    }
}
