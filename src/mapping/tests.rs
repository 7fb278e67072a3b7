//! What becomes of alert events by the default rules, and by a person's.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::alert::Resolution;
use crate::model::{Action, AlertEvent, Intent, Position};

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
    let mapping = SinkMapping::compile(rules).unwrap_or_else(|problems| panic!("{problems:?}"));
    mapping.map(&Arc::new(event.clone()), Position::new(1, 2, 0))
}

fn map(event: &AlertEvent) -> Intent {
    map_with(|_| {}, event).expect("maps").expect("is not left out")
}

fn pairs(values: &[(crate::model::Column, String)]) -> Vec<(&str, &str)> {
    values.iter().map(|(column, value)| (&**column, value.as_str())).collect()
}

fn field(rules: &mut Rules, column: &str, template: &str) {
    rules.fields.insert(column.into(), Some(template.into()));
}

#[test]
fn an_alert_that_opens() {
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
    assert_eq!((intent.event_id, intent.occurred_at), (Some(event_id_digest("01JDX")), 1_700_000_000_000));
}

#[test]
fn an_alert_that_ends() {
    let resolve = AlertEvent { action: Some(Action::Resolve), ..event() };
    assert_eq!(
        pairs(&map(&resolve).closing),
        [("close_code", "Solved (Permanently)"), ("close_notes", "Resolved by alertmanager.")]
    );
    let resolution = Resolution { reason: Some("false_positive".into()), code: Some("Not Solved".into()), notes: None };
    let told = AlertEvent { resolution: Some(resolution), actor: Some("Ann".into()), ..resolve };
    assert_eq!(
        pairs(&map(&told).closing),
        [("close_code", "Not Solved"), ("close_notes", "Resolved by Ann (false_positive).")]
    );
}

#[test]
fn notes_name_their_author_and_write_no_fields() {
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
fn severities_weigh() {
    let weight = |severity: Option<&str>| {
        let intent = map(&AlertEvent { severity: severity.map(Into::into), ..event() });
        let of = |column| intent.fields.iter().find(|(c, _)| &**c == column).map(|(_, v)| v.clone()).unwrap();
        (of("impact"), of("urgency"), intent.priority)
    };
    let is = |impact: &str, urgency: &str, priority| (impact.to_owned(), urgency.to_owned(), priority);
    assert_eq!(weight(Some("high")), is("2", "1", 1));
    assert_eq!(weight(Some("medium")), is("2", "2", 2));
    assert_eq!(weight(Some("low")), is("3", "2", 3));
    assert_eq!(weight(Some("info")), is("3", "3", 4));
    assert_eq!(weight(Some("never heard")), is("2", "2", 2));
    assert_eq!(weight(None), is("2", "2", 2));
}

#[test]
fn actions_may_be_left_out_or_taken_as_others() {
    let suppress = AlertEvent { action: Some(Action::Suppress), ..event() };
    assert_eq!(map_with(|_| {}, &suppress), Ok(None));
    let taken = map_with(|rules| rules.actions = vec![(Action::Suppress, ActionRule::As(Action::Resolve))], &suppress);
    assert_eq!(taken.unwrap().map(|i| i.action), Some(Action::Resolve));
    let only = |pattern: &str| map_with(|rules| rules.only = vec![pattern.into()], &event()).unwrap().is_some();
    for (pattern, kept) in [
        ("alertmanager:*", true),
        ("*:alert:*", true),
        ("*abcdef", true),
        ("alertmanager:alert:0123456789abcdef", true),
        ("alertmanager", false),
        ("backup:*", false),
        ("*:alert", false),
    ] {
        assert_eq!(only(pattern), kept, "{pattern}");
    }
}

#[test]
fn values_are_cut_at_characters_and_nothing_is_not_written() {
    let long = AlertEvent { title: Some("ü🔑".repeat(200)), description: None, ..event() };
    let intent = map(&long);
    let columns: Vec<&str> = intent.fields.iter().map(|(column, _)| &**column).collect();
    assert_eq!(columns, ["impact", "short_description", "urgency"]);
    assert_eq!(intent.fields[1].1, "ü🔑".repeat(80));
}

#[test]
fn templates_see_the_event_and_fail_clearly() {
    let mapped = |template: &str| {
        let intent = map_with(|rules| field(rules, "u_x", template), &event())?.expect("is not left out");
        Ok::<_, MappingError>(intent.fields.iter().find(|(c, _)| &**c == "u_x").map(|(_, v)| v.clone()))
    };
    assert_eq!(mapped("{{ labels.team|upper }}/{{ event.service.name }}").unwrap().as_deref(), Some("STORAGE/db"));
    assert_eq!(mapped("{{ labels.owner | default('nobody') }}").unwrap().as_deref(), Some("nobody"));
    assert_eq!(mapped("{% if labels.owner %}{{ labels.owner }}{% endif %}").unwrap(), None);
    assert_eq!(mapped("{{ number }}{{ url }}").unwrap(), None, "null prints as nothing");
    let error = mapped("{{ labels.owner }}!").unwrap_err();
    assert_eq!((error.code, error.at.as_str()), ("mapping", "fields.u_x"));
    assert!(error.message.contains("default(\"\")"), "{error}");
    let error = mapped("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}").unwrap_err();
    assert!(error.message.contains("too much work"), "{error}");
}

#[test]
fn every_wrong_rule_is_told_at_once() {
    let mut rules = Rules::default();
    for (column, template) in
        [("state", "6"), ("work_notes", "x"), ("sys_id", "x"), ("u_a", "{{ a b }}"), ("u_b", "{{ nonsense }} x")]
    {
        field(&mut rules, column, template);
    }
    rules.closing.insert("urgency".into(), Some("3".into()));
    rules.notes.push((Action::Open, Some("{% bad %}".into())));
    let problems = SinkMapping::compile(rules).expect_err("refused");
    let at: Vec<&str> = problems.iter().map(|p| p.at.as_str()).collect();
    assert_eq!(
        at,
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
    fn mapping_is_total_and_its_values_fit(title in "\\PC{0,400}|[\\x00-\\x20]{0,20}", severity in ".{0,9}", key in ".{1,150}") {
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
