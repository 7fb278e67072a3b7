//! From a version of a row, a journal entry or a delete to the event that is published.
//!
//! An *echo* is a version that the bridge itself wrote and that nobody else's version can hide behind: written by the
//! bridge's user, and exactly one above the last version known (or version 0 of a row never seen). Where the bridge
//! wrote last but versions between were not seen, a person's change may be among the differences: that is `mixed`, and
//! is published.

use std::collections::BTreeMap;

use super::Settings;
use super::rows::{RowState, Verdict, Version};
use super::timestamp;
use crate::model::Phase;
use crate::model::change::{Change, ChangeOrigin, FieldChange, JournalNote, Operation};

const SCHEMA: &str = "servicenow-change/1";

/// Key of the records of a row: stays when the row's class changes, so that the row's changes stay in order.
pub fn key(settings: &Settings, sys_id: &str) -> String {
    format!("{}:{}:{sys_id}", settings.instance, settings.table)
}

/// Who made a version.
pub fn origin(settings: &Settings, version: &Version, verdict: Verdict) -> ChangeOrigin {
    let next = match verdict {
        Verdict::New | Verdict::Recreated => version.mod_count == 0,
        Verdict::Later { skipped } => skipped == 0,
        Verdict::Stale => false,
    };
    match author(settings, &version.updated_by) {
        ChangeOrigin::Bridge if !next => ChangeOrigin::Mixed,
        origin => origin,
    }
}

fn author(settings: &Settings, user: &str) -> ChangeOrigin {
    // The instance compares user names without regard to case, and so does its database.
    if user.eq_ignore_ascii_case(&settings.bridge_user) {
        ChangeOrigin::Bridge
    } else if settings.integrations.iter().any(|i| i.eq_ignore_ascii_case(user)) {
        ChangeOrigin::Integration
    } else {
        ChangeOrigin::Person
    }
}

/// The change that a version is. `known` is the row's state before it, `born` the instance's clock when the route
/// first started: a row made before that and never seen is not "created".
pub fn of_version(
    settings: &Settings,
    version: &Version,
    verdict: Verdict,
    known: Option<&RowState>,
    born: i64,
) -> Change {
    let known = known.filter(|_| matches!(verdict, Verdict::Later { .. }));
    let (operation, skipped, made_now) = match verdict {
        Verdict::Later { skipped } => (Operation::Update, skipped, false),
        _ => {
            let made_now = version.mod_count == 0 || version.created_on >= born;
            (Operation::Insert, if made_now { version.mod_count } else { 0 }, made_now)
        }
    };
    let before = known.map(|k| k.values.clone()).unwrap_or_default();
    let changed_fields = match known {
        Some(_) => differences(&before, &version.values),
        None => BTreeMap::new(),
    };
    let kinds = match known {
        Some(_) => kinds_of_update(settings, &changed_fields),
        None => kinds_of_first_sight(settings, version, made_now),
    };
    let recreated = verdict == Verdict::Recreated || known.is_some_and(|k| k.recreated);
    Change {
        schema: SCHEMA.into(),
        change_id: version_id(settings, version, recreated),
        instance: settings.instance.clone(),
        table: version.class.clone(),
        sys_id: version.sys_id.clone(),
        number: version.number.clone(),
        operation,
        kinds,
        occurred_at: timestamp::rfc3339(version.updated_on),
        updated_by: version.updated_by.clone(),
        sys_mod_count: version.mod_count,
        versions_skipped: skipped,
        origin: origin(settings, version, verdict),
        before,
        after: version.values.clone(),
        changed_fields,
        correlation: version.correlation.clone(),
        note: None,
    }
}

fn version_id(settings: &Settings, version: &Version, recreated: bool) -> String {
    let id = format!("{}:{}", key(settings, &version.sys_id), version.mod_count);
    // A row made anew under an old sys_id counts from 0 again.
    if recreated { format!("{id}:{}", timestamp::rfc3339(version.created_on)) } else { id }
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
        // A version in which nothing watched differs: other columns, or a note.
        kinds.push("field_changed");
    }
    distinct(&kinds)
}

fn kinds_of_first_sight(settings: &Settings, version: &Version, made_now: bool) -> Vec<String> {
    let state = version.values.get(&settings.states.column);
    let ended = |raw: &&String| matches!(settings.states.phase(raw), Phase::Resolved | Phase::Closed);
    let mut kinds = vec![if made_now { "created" } else { "field_changed" }];
    // Of an older row the last state is unknown; that it has ended is worth saying all the same.
    kinds.extend(state.filter(|raw| made_now || ended(raw)).and_then(|raw| transition(settings, Phase::New, raw)));
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
pub fn state_after(settings: &Settings, version: &Version, verdict: Verdict, known: Option<&RowState>) -> RowState {
    RowState {
        mod_count: version.mod_count,
        created_on: version.created_on,
        updated_on: version.updated_on,
        number: version.number.clone(),
        class: Some(version.class.clone()).filter(|c| *c != settings.table),
        correlation: version.correlation.clone(),
        values: version.values.clone(),
        recreated: verdict == Verdict::Recreated || known.is_some_and(|k| k.recreated),
        deleted: None,
    }
}

/// The change that a journal entry is. The row's state is given for what it is about, and is not changed by it.
pub fn of_note(settings: &Settings, sys_id: &str, row: &RowState, note: JournalNote) -> Change {
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
        ..about(settings, sys_id, row)
    }
}

/// The change that a delete is. A delete by the bridge's user is `mixed`, never an echo: versions that nobody read may
/// have gone with the row.
pub fn of_delete(settings: &Settings, sys_id: &str, row: &RowState, audit: &str, by: &str, at: i64) -> Change {
    Change {
        change_id: format!("{}:deleted:{audit}", key(settings, sys_id)),
        operation: Operation::Delete,
        kinds: vec!["deleted".into()],
        occurred_at: timestamp::rfc3339(at),
        updated_by: by.into(),
        origin: match author(settings, by) {
            ChangeOrigin::Bridge => ChangeOrigin::Mixed,
            origin => origin,
        },
        before: row.values.clone(),
        ..about(settings, sys_id, row)
    }
}

fn about(settings: &Settings, sys_id: &str, row: &RowState) -> Change {
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
        origin: ChangeOrigin::Person,
        before: BTreeMap::new(),
        after: BTreeMap::new(),
        changed_fields: BTreeMap::new(),
        correlation: row.correlation.clone(),
        note: None,
    }
}
