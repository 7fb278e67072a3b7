//! Mapping of alert events by the default rules and by configured ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::alert::Resolution;
use crate::model::{Action, AlertEvent, EventOrder, Intent, Position};

fn event() -> AlertEvent {
    AlertEvent {
        event_id: "01JDX".into(),
        event_id_native: true,
        system: "alertmanager".into(),
        kind: "alert".into(),
        object_id: "0123456789abcdef".into(),
        key: "alertmanager:alert:0123456789abcdef".into(),
        action: Some(Action::Open),
        status: "open".into(),
        occurred_at: 1_700_000_000_000,
        title: Some("Disk of db-1 is 91 % full".into()),
        description: Some("/var has 4 GB left".into()),
        severity: Some("critical".into()),
        labels: BTreeMap::from([("team".into(), "storage".into())]),
        json: serde_json::json!({ "service": { "name": "db" } }),
        ..AlertEvent::default()
    }
}

fn map_with(change: impl FnOnce(&mut Rules), event: &AlertEvent) -> Result<Option<Intent>, MappingError> {
    let mut rules = Rules::default();
    change(&mut rules);
    let mapping = SinkMapping::compile(rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    mapping.map(&Arc::new(event.clone()), Position::new(1, 2, 0), EventOrder::UNKNOWN)
}

fn map(event: &AlertEvent) -> Intent {
    map_with(|_| {}, event).expect("maps").expect("is not skipped")
}

fn pairs(values: &[(crate::model::Column, String)]) -> Vec<(&str, &str)> {
    values.iter().map(|(column, value)| (&**column, value.as_str())).collect()
}

fn field(rules: &mut Rules, column: &str, template: &str) {
    rules.fields.insert(column.into(), Some(template.into()));
}

#[test]
fn an_open_event_writes_fields() {
    let intent = map(&event());
    assert_eq!(
        pairs(&intent.fields),
        [
            ("description", "/var has 4 GB left"),
            ("impact", "1"),
            ("short_description", "Disk of db-1 is 91 % full"),
            ("urgency", "1"),
        ]
    );
    assert_eq!((intent.closing.len(), intent.note.as_deref(), intent.priority), (0, None, 0));
    assert_eq!((intent.action, intent.position), (Action::Open, Position::new(1, 2, 0)));
    assert_eq!((intent.event_id, intent.occurred_at), (Some(event_id_hash("01JDX")), 1_700_000_000_000));
}

#[test]
fn a_resolve_event_writes_closing_fields() {
    let resolve = AlertEvent { action: Some(Action::Resolve), ..event() };
    assert_eq!(
        pairs(&map(&resolve).closing),
        [("close_code", "Solved (Permanently)"), ("close_notes", "Resolved by alertmanager.")]
    );
    let resolution = Resolution { reason: Some("false_positive".into()), code: Some("Not Solved".into()), notes: None };
    let with_resolution = AlertEvent { resolution: Some(resolution), actor: Some("Ann".into()), ..resolve };
    assert_eq!(
        pairs(&map(&with_resolution).closing),
        [("close_code", "Not Solved"), ("close_notes", "Resolved by Ann (false_positive).")]
    );
}

#[test]
fn notes_contain_their_author_and_write_no_fields() {
    let note = AlertEvent {
        action: Some(Action::Note),
        note: Some("looking\ninto it ".into()),
        actor: Some("Ann".into()),
        ..event()
    };
    let intent = map(&note);
    assert_eq!((intent.note.as_deref(), intent.fields.len()), (Some("Ann: looking\ninto it"), 0));
    let merge = AlertEvent { action: Some(Action::Merge), json: serde_json::json!({"merged_into": "Q2"}), ..event() };
    let intent = map(&merge);
    assert_eq!((intent.note.as_deref(), intent.closing.len()), (Some("Merged into Q2."), 2));
}

#[test]
fn an_update_without_a_severity_leaves_the_one_of_the_ticket() {
    for severity in [None, Some("unknown".to_owned())] {
        for (action, written) in [(Action::Open, true), (Action::Update, false), (Action::Resolve, false)] {
            let intent = map(&AlertEvent { action: Some(action), severity: severity.clone(), ..event() });
            let has = |name: &str| intent.fields.iter().any(|(column, _)| **column == *name);
            assert_eq!((has("impact"), has("urgency")), (written, written), "{action:?} {severity:?}");
        }
    }
}

#[test]
fn an_opening_event_has_the_firing_that_its_sender_names() {
    let episode = |action| map(&AlertEvent { action: Some(action), episode: Some("f1".into()), ..event() }).episode;
    assert_eq!(episode(Action::Open), Some(event_id_hash("f1")));
    assert_eq!((episode(Action::Update), map(&event()).episode), (None, None));
}

#[test]
fn impact_urgency_and_priority_follow_from_the_severity() {
    let values = |severity: Option<&str>| {
        let intent = map(&AlertEvent { severity: severity.map(Into::into), ..event() });
        let field = |column| intent.fields.iter().find(|(c, _)| &**c == column).map(|(_, v)| v.clone()).unwrap();
        (field("impact"), field("urgency"), intent.priority)
    };
    let expected = |impact: &str, urgency: &str, priority| (impact.to_owned(), urgency.to_owned(), priority);
    assert_eq!(values(Some("high")), expected("2", "1", 1));
    assert_eq!(values(Some("medium")), expected("2", "2", 2));
    assert_eq!(values(Some("low")), expected("3", "2", 3));
    assert_eq!(values(Some("info")), expected("3", "3", 4));
    assert_eq!(values(Some("other")), expected("2", "2", 2));
    assert_eq!(values(None), expected("2", "2", 2));
}

#[test]
fn actions_can_be_skipped_or_handled_as_others() {
    let suppress = AlertEvent { action: Some(Action::Suppress), ..event() };
    assert_eq!(map_with(|_| {}, &suppress), Ok(None));
    let mapped = map_with(|rules| rules.actions = vec![(Action::Suppress, ActionRule::As(Action::Resolve))], &suppress);
    assert_eq!(mapped.unwrap().map(|i| i.action), Some(Action::Resolve));
    let is_mapped =
        |pattern: &str| map_with(|rules| rules.key_filter = vec![pattern.into()], &event()).unwrap().is_some();
    for (pattern, expected) in [
        ("alertmanager:*", true),
        ("*:alert:*", true),
        ("*abcdef", true),
        ("alertmanager:alert:0123456789abcdef", true),
        ("alertmanager", false),
        ("backup:*", false),
        ("*:alert", false),
    ] {
        assert_eq!(is_mapped(pattern), expected, "{pattern}");
    }
}

#[test]
fn values_are_truncated_at_characters_and_empty_values_are_not_written() {
    let long = AlertEvent { title: Some("ü🔑".repeat(200)), description: None, ..event() };
    let intent = map(&long);
    let columns: Vec<&str> = intent.fields.iter().map(|(column, _)| &**column).collect();
    assert_eq!(columns, ["impact", "short_description", "urgency"]);
    assert_eq!(intent.fields[1].1, "ü🔑".repeat(80));
}

#[test]
fn templates_can_use_the_event_and_fail_with_clear_errors() {
    let mapped = |template: &str| {
        let intent = map_with(|rules| field(rules, "u_x", template), &event())?.expect("is not skipped");
        Ok::<_, MappingError>(intent.fields.iter().find(|(c, _)| &**c == "u_x").map(|(_, v)| v.clone()))
    };
    assert_eq!(mapped("{{ labels.team|upper }}/{{ event.service.name }}").unwrap().as_deref(), Some("STORAGE/db"));
    assert_eq!(mapped("{{ labels.owner | default('nobody') }}").unwrap().as_deref(), Some("nobody"));
    assert_eq!(mapped("{% if labels.owner %}{{ labels.owner }}{% endif %}").unwrap(), None);
    assert_eq!(mapped("{{ number }}{{ url }}").unwrap(), None, "null renders as nothing");
    let error = mapped("{{ labels.owner }}!").unwrap_err();
    assert_eq!((error.code, error.path.as_str()), ("mapping", "fields.u_x"));
    assert!(error.message.contains("default(\"\")"), "{error}");
    let error = mapped("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}").unwrap_err();
    assert!(error.message.contains("too much work"), "{error}");
}

#[test]
fn all_invalid_rules_are_reported_at_once() {
    let mut rules = Rules::default();
    for (column, template) in
        [("state", "6"), ("work_notes", "x"), ("sys_id", "x"), ("u_a", "{{ a b }}"), ("u_b", "{{ nonsense }} x")]
    {
        field(&mut rules, column, template);
    }
    rules.closing.insert("urgency".into(), Some("3".into()));
    rules.notes.push((Action::Open, Some("{% bad %}".into())));
    let errors = SinkMapping::compile(rules).expect_err("rejected");
    let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "fields.state",
            "fields.sys_id",
            "fields.u_a",
            "fields.u_b",
            "fields.work_notes",
            "closing.urgency",
            "notes.open"
        ]
    );
}

proptest! {
    #[test]
    fn mapping_is_total_and_its_values_fit_the_columns(title in "\\PC{0,400}|[\\x00-\\x20]{0,20}", severity in ".{0,9}", key in ".{1,150}") {
        let event = AlertEvent { title: Some(title), severity: Some(severity), key, ..event() };
        let intent = map(&event);
        prop_assert!(intent.fields.is_sorted_by(|a, b| a.0 < b.0));
        for (column, value) in &intent.fields {
            prop_assert!(!value.is_empty() && value.trim() == value, "{column}: {value:?}");
            prop_assert!(&**column != "short_description" || value.chars().count() <= 160);
        }
        prop_assert!(correlation(&event.key).chars().count() <= CORRELATION_LENGTH);
    }
}
