//! A route that writes events of Event Management (`write: event`): its settings, and the rules that it begins with.
//!
//! An event must say everything about its alert, so there are no states, no people and no rows to read: what an alert is
//! follows from its events alone, by the instance's rules.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::settings::Settings;
use crate::mapping::Rules;
use crate::model::StateModel;

use super::super::raw::{RawEvent, RawSink};
use super::super::resolved::Write;
use super::super::shape::join;
use super::Context;

/// The table that takes events.
pub(super) const TABLE: &str = "em_event";

/// Begins the names of parts of `additional_info`.
const INFO: &str = "additional_info.";

/// Columns, parts of `additional_info` among them, that the bridge or the instance fills.
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

/// Characters of the columns that identify what an event is about.
const SHORT: [&str; 4] = ["node", "resource", "type", "metric_name"];

/// Most characters of notes in one event, unless the file says otherwise: `additional_info` is bounded, and not everywhere
/// in the same way.
const NOTES: usize = 2_000;

const SEVERITY: &str = r#"
{%- if severity == "critical" -%}1
{%- elif severity == "high" -%}2
{%- elif severity == "low" -%}4
{%- elif severity == "info" -%}5
{%- else -%}3{%- endif -%}"#;

const DESCRIPTION: &str = "{{ title or object_id }}{% if description %}\n\n{{ description }}{% endif %}";

/// Severities stand for the state: 0 where the alert is over, and any other where it is open.
pub(super) fn states() -> StateModel {
    StateModel {
        column: "severity".into(),
        // Written where no event of the alert has told its severity: minor.
        new: "3".into(),
        in_progress: "3".into(),
        on_hold: Vec::new(),
        resolved: "0".into(),
        closed: Vec::new(),
    }
}

/// The defaults of a route's rules.
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
    lengths.extend(SHORT.map(|column| (column.to_owned(), 100)));
    Rules {
        fields: fields.map(template).into(),
        closing: closing.map(|(column, text)| (column.to_owned(), text)).into(),
        lengths,
        reserved: RESERVED.to_vec(),
        parted: Some(INFO),
        ..defaults
    }
}

/// What makes no sense for events is refused, rather than left without effect.
pub(super) fn refuse_others(raw: &RawSink, at: &str, context: &mut Context<'_>) {
    let others = [
        ("row_freshness", raw.row_freshness.is_some(), "the alert is never read"),
        ("people", raw.people.is_some(), "what people do to an alert is not seen"),
        ("states", raw.states.is_some(), "the state of an alert follows from the severity of its events"),
        ("correlation_display", raw.correlation_display.is_some(), "`event.source` names the bridge"),
        ("table", raw.table.as_deref().is_some_and(|table| table != TABLE), "events go to `em_event`"),
    ];
    for (name, given, why) in others {
        if given {
            context.error(&join(at, name), &format!("`{name}` has no meaning for `write: event`: {why}; remove it"));
        }
    }
}

pub(super) fn write(raw: Option<&RawEvent>, route: &str, at: &str, context: &mut Context<'_>) -> Write {
    let text = |of: fn(&RawEvent) -> &Option<String>, default: &str| {
        raw.and_then(|raw| of(raw).clone()).unwrap_or_else(|| default.to_owned())
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

/// The engine's settings for events.
pub(super) fn settle(settings: &mut Settings, note_limit: Option<u32>) {
    settings.whole = true;
    settings.row_freshness = u64::MAX;
    if note_limit.is_none() {
        settings.note_limit = NOTES;
    }
}
