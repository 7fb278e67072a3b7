//! Events of alerts in, events of their groups out.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::Record;
use crate::systems::Decoder;

const RULE: &str = "{{ labels.service }}";
const KEY: &str = "group:shop";
/// 2027-01-15T08:00:00Z.
const T0: i64 = 1_800_000_000_000;

/// Returns an event of an alert, `after` seconds after `T0`.
fn event(alert: &str, action: &str, after: i64) -> AlertEvent {
    event_with(alert, action, after, json!({}))
}

fn event_with(alert: &str, action: &str, after: i64, fields: Value) -> AlertEvent {
    let at = jiff::Timestamp::from_millisecond(T0 + after * 1_000).expect("a time").to_string();
    let mut body = json!({
        "source": "prometheus", "key": alert, "action": action, "title": format!("{alert} is down"),
        "severity": "high", "occurred_at": at, "labels": { "service": "shop", "host": alert },
    });
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    decode(body.to_string().into_bytes())
}

fn decode(body: Vec<u8>) -> AlertEvent {
    let record = Record {
        topic: Arc::from("t"),
        partition: 0,
        offset: 0,
        key: None,
        value: Some(body),
        headers: Vec::new(),
        timestamp: None,
    };
    Decoder::Canonical.decode(&record).unwrap_or_else(|error| panic!("{error}")).remove(0)
}

/// The groups of a partition, with all rows that they have written.
#[derive(Default)]
struct Partition {
    groups: Groups,
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Partition {
    /// Applies a batch of events to the group `KEY`, and returns the events of the group.
    fn apply(&mut self, batch: &[AlertEvent]) -> Vec<AlertEvent> {
        self.apply_to(KEY, batch, None)
    }

    /// Applies a batch of events to a group. `written_at` is the timestamp of their records.
    fn apply_to(&mut self, group: &str, batch: &[AlertEvent], written_at: Option<i64>) -> Vec<AlertEvent> {
        let mut out = Vec::new();
        for event in batch {
            self.groups.apply(group, event, written_at, 3, &mut out);
        }
        self.groups.finish(RULE, 3, &mut out);
        let mut events = Vec::new();
        for output in out {
            match output {
                Output::Event(body) => events.push(decode(body)),
                Output::Row(key, value) => drop(self.rows.insert(key, value)),
            }
        }
        events
    }

    /// Loads the groups from their rows.
    fn restart(&mut self) {
        self.groups = Groups::default();
        for (key, value) in &self.rows {
            self.groups.load(key, value.as_deref()).expect("a valid row");
        }
    }
}

fn actions(events: &[AlertEvent]) -> Vec<Action> {
    events.iter().filter_map(|event| event.action).collect()
}

#[test]
fn a_group_is_open_as_long_as_one_of_its_alerts_is() {
    let mut partition = Partition::default();
    let events = partition.apply(&[event("a", "open", 0), event("b", "open", 1), event("c", "open", 2)]);
    assert_eq!(actions(&events), [Action::Open, Action::Update], "the opening at once, the rest as one event");
    assert_eq!(events[0].title.as_deref(), Some("a is down"));
    let last = &events[1];
    assert_eq!((last.key.as_str(), last.kind.as_str(), last.object_id.as_str()), (KEY, "alert_group", "shop"));
    assert_eq!(last.title.as_deref(), Some("3 alerts: shop"));
    assert_eq!(last.labels, BTreeMap::from([("service".to_owned(), "shop".to_owned())]), "the labels in common");
    assert_eq!(last.occurred_at, T0 + 2_000);
    partition.restart();
    assert_eq!(actions(&partition.apply(&[event("a", "resolve", 3), event("b", "resolve", 4)])), [Action::Update]);
    partition.restart();
    let events = partition.apply(&[event("c", "resolve", 5)]);
    assert_eq!(actions(&events), [Action::Resolve]);
    assert!(
        events[0]
            .description
            .as_deref()
            .expect("a description")
            .starts_with("0 open, 3 over.\n- resolved, high, since")
    );
    // An alert that opens again starts another episode.
    let events = partition.apply(&[event("b", "open", 6)]);
    assert_eq!(actions(&events), [Action::Open]);
    assert_eq!(events[0].title.as_deref(), Some("b is down"));
}

#[test]
fn late_and_repeated_events_open_nothing() {
    let mut partition = Partition::default();
    partition.apply(&[event("a", "open", 0), event("a", "resolve", 9)]);
    partition.restart();
    assert_eq!(partition.apply(&[event("a", "open", 0), event("a", "resolve", 9)]), []);
    // The resolve arrives before the open.
    assert_eq!(partition.apply(&[event("b", "resolve", 20)]), []);
    partition.restart();
    assert_eq!(partition.apply(&[event("b", "open", 19)]), []);
    // An alert whose clock is behind: the group's time never goes back, or the sink would treat its events as late.
    let events = partition.apply(&[event("c", "open", 15)]);
    assert_eq!((actions(&events), events[0].occurred_at), (vec![Action::Open], T0 + 20_000));
}

#[test]
fn every_change_of_the_status_and_every_note_is_emitted_in_order() {
    let mut partition = Partition::default();
    let note = |text: &str| json!({ "note": text, "actor": "ann" });
    let events = partition.apply(&[
        event("a", "open", 0),
        event("a", "acknowledge", 1),
        event("b", "open", 2),
        event_with("b", "note", 3, note("look")),
        event_with("b", "acknowledge", 4, note("mine")),
        event("b", "resolve", 5),
        event_with("a", "resolve", 6, json!({ "resolution": { "code": "Fixed", "notes": "done" } })),
        event("b", "open", 7),
    ]);
    use Action::{Acknowledge, Note, Open, Resolve, Unacknowledge};
    assert_eq!(actions(&events), [Open, Acknowledge, Unacknowledge, Note, Acknowledge, Resolve, Open]);
    assert_eq!((events[3].note.as_deref(), events[3].actor.as_deref()), (Some("b is down: look"), Some("ann")));
    assert_eq!(events[4].note.as_deref(), Some("b is down: mine"));
    assert_eq!(events[5].resolution.as_ref().and_then(|r| r.code.as_deref()), Some("Fixed"));
    // A note contains no values, so changed values follow it in another event.
    let events = partition
        .apply(&[event_with("b", "update", 8, json!({ "severity": "low" })), event_with("b", "note", 9, note("so?"))]);
    assert_eq!(actions(&events), [Note, Action::Update]);
    assert_eq!(events[1].severity.as_deref(), Some("low"));
    // A note to an alert of an unknown group is dropped.
    assert_eq!(Partition::default().apply(&[event_with("x", "note", 0, note("hm")), event("x", "update", 1)]), []);
}

#[test]
fn the_list_is_limited_and_sorted_by_severity() {
    let mut partition = Partition::default();
    let events: Vec<AlertEvent> = (0..9)
        .map(|n| {
            event_with(&format!("a{n}"), "open", n, json!({ "severity": if n == 7 { "critical" } else { "low" } }))
        })
        .chain([event("a1", "resolve", 20)])
        .collect();
    let events = partition.apply(&events);
    let last = events.last().expect("an event");
    assert_eq!(last.severity.as_deref(), Some("critical"));
    let lines: Vec<&str> = last.description.as_deref().expect("a description").lines().collect();
    assert_eq!((lines[0], lines.len(), lines[4]), ("8 open, 1 over.", 5, "and 6 more"));
    assert_eq!(lines[1], "- open, critical, since 2027-01-15T08:00:07Z: a7 is down");
    assert_eq!(lines[2], "- open, low, since 2027-01-15T08:00:00Z: a0 is down");
    let grouping = &last.json["grouping"];
    assert_eq!(
        (&grouping["open"], &grouping["total"], &grouping["alerts"][0]["key"]),
        (&json!(8), &json!(9), &json!("a7"))
    );
}

#[test]
fn an_event_without_visible_changes_emits_nothing() {
    let mut partition = Partition::default();
    partition.apply(&[event("a", "open", 0)]);
    assert_eq!(partition.apply(&[event("a", "open", 60)]), [], "a repetition");
    assert_eq!(
        actions(&partition.apply(&[event_with("a", "open", 61, json!({ "severity": "low" }))])),
        [Action::Update]
    );
}

#[test]
fn an_open_group_forgets_expired_alerts_and_still_counts_them() {
    let mut partition = Partition::default();
    partition.apply(&[event("a", "open", 0), event("b", "open", 0), event("b", "resolve", 1)]);
    let day = 24 * 3_600;
    let events = partition.apply(&[event("c", "open", day + 1_000)]);
    assert_eq!(events.last().and_then(|event| event.title.as_deref()), Some("3 alerts: shop"));
    partition.restart();
    let events = partition.apply(&[event("c", "resolve", day + 1_001)]);
    assert!(events[0].description.as_deref().expect("a description").starts_with("1 open, 2 over."), "{events:?}");
    partition.apply(&[event("a", "resolve", day + 1_002)]);
    // An expired group is forgotten; only the rule remains.
    let mut out = Vec::new();
    partition.groups.apply("group:other", &event("z", "open", 3 * day), None, 3, &mut out);
    partition.groups.finish(RULE, 3, &mut out);
    assert_eq!(partition.groups.len(), 1);
    let removed = out.iter().filter(|output| matches!(output, Output::Row(_, None))).count();
    assert_eq!(removed, 3, "the rows of the group and of its two alerts: {out:?}");
}

#[test]
fn a_publisher_whose_clock_is_ahead_does_not_make_other_groups_expire() {
    let mut partition = Partition::default();
    partition.apply(&[event("a", "open", 0), event("a", "resolve", 1)]);
    let ahead = event("z", "open", 365 * 24 * 3_600);
    partition.apply_to("group:other", &[ahead], Some(T0 + 2_000));
    partition.restart();
    partition.apply_to("group:other", &[event("z", "open", 3)], Some(T0 + 3_000));
    assert_eq!(partition.groups.len(), 2, "the resolved group is still known");
    assert_eq!(partition.apply(&[event("a", "open", 0)]), [], "so a repeated event opens nothing");
}

#[test]
fn a_foreign_row_is_an_error() {
    let error = Groups::default().load(b"mine", Some(b"{}")).expect_err("an error");
    assert!(error.to_string().contains("mine"), "{error}");
    let mut partition = Partition::default();
    partition.apply(&[event("a", "open", 0)]);
    partition.restart();
    assert_eq!(partition.groups.rule(), Some(RULE));
}
