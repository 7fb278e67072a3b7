//! Resolves a route that writes events of Event Management (`write: event`): its settings and its default rules.
//!
//! An event must contain everything about its alert, so there are no states, no user edits and no rows to read: the
//! instance computes an alert from its events alone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::settings::Settings;
use crate::mapping::Rules;
use crate::model::StateModel;

use super::super::raw::{RawEvent, RawSink};
use super::super::resolved::Write;
use super::super::validate::join;
use super::Context;

/// The table into which events are inserted.
pub(super) const TABLE: &str = "em_event";

/// Prefix of the subfields of `additional_info` in the configuration.
const INFO_PREFIX: &str = "additional_info.";

/// Columns and subfields of `additional_info` that the bridge or the instance writes.
const RESERVED: [&str; 9] = [
    "message_key",
    "source",
    "event_class",
    "additional_info",
    "alert",
    "bucket",
    "additional_info.nowbridge_attempt",
    "additional_info.nowbridge_ticket",
    "additional_info.note",
];

/// Columns that identify the subject of an event; 100 characters each.
const SHORT_COLUMNS: [&str; 4] = ["node", "resource", "type", "metric_name"];

/// Default limit of the characters of notes in one event: `additional_info` is bounded, and the bound differs between
/// instances.
const NOTE_LIMIT: usize = 2_000;

const SEVERITY: &str = r#"
{%- if severity == "critical" -%}1
{%- elif severity == "high" -%}2
{%- elif severity == "low" -%}4
{%- elif severity == "info" -%}5
{%- else -%}3{%- endif -%}"#;

const DESCRIPTION: &str = "{{ title or object_id }}{% if description %}\n\n{{ description }}{% endif %}";

/// Returns the states of an event's alert: severity 0 means resolved, any other severity open.
pub(super) fn states() -> StateModel {
    StateModel {
        column: "severity".into(),
        // Minor. Written if no event of the alert has a severity.
        new: "3".into(),
        in_progress: "3".into(),
        on_hold: Vec::new(),
        resolved: "0".into(),
        closed: Vec::new(),
    }
}

/// Returns the default rules.
pub(super) fn rules() -> Rules {
    let template = |(column, text): (&str, &str)| (column.to_owned(), Some(text.to_owned()));
    let fields = [
        ("severity", SEVERITY),
        ("description", DESCRIPTION),
        ("node", r#"{{ labels.node or labels.host or labels.instance or "" }}"#),
        ("resource", r#"{{ labels.resource or labels.service or "" }}"#),
        ("type", "{{ labels.alertname or kind }}"),
        ("metric_name", r#"{{ labels.metric_name or labels.metric or "" }}"#),
        ("additional_info.key", "{{ key }}"),
        ("additional_info.system", "{{ source }}"),
        ("additional_info.status", "{{ status }}"),
        ("additional_info.url", "{{ url }}"),
    ];
    let mut defaults = Rules::default();
    let resolution = defaults.closing.remove("close_notes").flatten();
    let closing = [("resolution_state", Some("Closing".to_owned())), ("additional_info.resolution", resolution)];
    let mut lengths =
        BTreeMap::from([("description".to_owned(), 4_000), ("additional_info.resolution".to_owned(), 1_000)]);
    lengths.extend(SHORT_COLUMNS.map(|column| (column.to_owned(), 100)));
    Rules {
        fields: fields.map(template).into(),
        closing: closing.map(|(column, text)| (column.to_owned(), text)).into(),
        lengths,
        reserved: RESERVED.to_vec(),
        subfield_prefix: Some(INFO_PREFIX),
        ..defaults
    }
}

/// Adds an error for each key that has no effect on events.
pub(super) fn reject_inapplicable_keys(raw: &RawSink, at: &str, context: &mut Context<'_>) {
    let inapplicable = [
        ("max_row_age", raw.max_row_age.is_some(), "the bridge never reads the alert"),
        ("on_user_edit", raw.on_user_edit.is_some(), "the bridge does not see user edits of an alert"),
        ("on_user_resolve", raw.on_user_resolve.is_some(), "the bridge does not see user edits of an alert"),
        ("states", raw.states.is_some(), "the state of an alert follows from the severity of its events"),
        ("correlation_display", raw.correlation_display.is_some(), "`event.source` names the bridge"),
        ("table", raw.table.as_deref().is_some_and(|table| table != TABLE), "events go to `em_event`"),
    ];
    for (name, is_set, reason) in inapplicable {
        if is_set {
            context.error(&join(at, name), &format!("`{name}` has no effect with `write: event`: {reason}; remove it"));
        }
    }
}

pub(super) fn write(raw: Option<&RawEvent>, route: &str, at: &str, context: &mut Context<'_>) -> Write {
    let text = |field: fn(&RawEvent) -> &Option<String>, default: &str| {
        raw.and_then(|raw| field(raw).clone()).unwrap_or_else(|| default.to_owned())
    };
    let (source, class) = (text(|raw| &raw.source, "nowbridge"), text(|raw| &raw.class, route));
    for (name, value) in [("source", &source), ("class", &class)] {
        if value.chars().count() > 100 || (name == "source" && value.is_empty()) {
            context.error(&join(at, name), "use 1 to 100 characters");
        }
    }
    let linger = raw.and_then(|raw| raw.linger.as_deref());
    let linger = context.duration_in(&join(at, "linger"), linger, Duration::from_millis(100), ("0", "10s"));
    let size = raw.and_then(|raw| raw.size).unwrap_or(50);
    Write::Event { source, class, size: usize::try_from(size).unwrap_or(50).max(1), linger }
}

/// Sets the engine's settings for events.
pub(super) fn apply_event_defaults(settings: &mut Settings, note_limit: Option<u32>) {
    settings.full_snapshot = true;
    settings.max_row_age = u64::MAX;
    if note_limit.is_none() {
        settings.note_limit = NOTE_LIMIT;
    }
}
