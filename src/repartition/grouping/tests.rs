//! What a group becomes of its alerts' events.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::Record;
use crate::systems::Decoder;

const RULE: &str = "{{ labels.service }}";
const KEY: &str = "digest:shop";
/// 2027-01-15T08:00:00Z.
const T0: i64 = 1_800_000_000_000;

/// An event of an alert, `after` seconds after the beginning.
fn event(alert: &str, action: &str, after: i64) -> AlertEvent {
    with(alert, action, after, json!({}))
}

fn with(alert: &str, action: &str, after: i64, more: Value) -> AlertEvent {
    let at = jiff::Timestamp::from_millisecond(T0 + after * 1_000).expect("a time").to_string();
    let mut body = json!({
        "source": "prometheus", "key": alert, "action": action, "title": format!("{alert} is down"),
        "severity": "high", "occurred_at": at, "labels": { "service": "shop", "host": alert },
    });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    decoded(body.to_string().into_bytes())
}

fn decoded(body: Vec<u8>) -> AlertEvent {
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

/// The groups of a partition with everything that they wrote.
#[derive(Default)]
struct Bench {
    groups: Groups,
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Bench {
    /// What is told of events that come together.
    fn take(&mut self, events: &[AlertEvent]) -> Vec<AlertEvent> {
        self.take_of(KEY, events, None)
    }

    /// The same of another group, and of events whose records were written then.
    fn take_of(&mut self, group: &str, events: &[AlertEvent], written: Option<i64>) -> Vec<AlertEvent> {
        let mut out = Vec::new();
        for event in events {
            self.groups.apply(group, event, written, 3, &mut out);
        }
        self.groups.finish(RULE, 3, &mut out);
        let mut told = Vec::new();
        for output in out {
            match output {
                Output::Event(body) => told.push(decoded(body)),
                Output::Row(key, value) => drop(self.rows.insert(key, value)),
            }
        }
        told
    }

    /// Goes on from what was written.
    fn restart(&mut self) {
        self.groups = Groups::default();
        for (key, value) in &self.rows {
            self.groups.load(key, value.as_deref()).expect("a row of ours");
        }
    }
}

fn actions(told: &[AlertEvent]) -> Vec<Action> {
    told.iter().filter_map(|event| event.action).collect()
}

#[test]
fn a_group_is_open_as_long_as_one_of_its_alerts_is() {
    let mut bench = Bench::default();
    let told = bench.take(&[event("a", "open", 0), event("b", "open", 1), event("c", "open", 2)]);
    assert_eq!(actions(&told), [Action::Open, Action::Update], "once at once, once for all the rest");
    assert_eq!(told[0].title.as_deref(), Some("a is down"));
    let last = &told[1];
    assert_eq!((last.key.as_str(), last.kind.as_str(), last.object_id.as_str()), (KEY, "alert_group", "shop"));
    assert_eq!(last.title.as_deref(), Some("3 alerts: shop"));
    assert_eq!(last.labels, BTreeMap::from([("service".to_owned(), "shop".to_owned())]), "those in common");
    assert_eq!(last.occurred_at, T0 + 2_000);
    bench.restart();
    assert_eq!(actions(&bench.take(&[event("a", "resolve", 3), event("b", "resolve", 4)])), [Action::Update]);
    bench.restart();
    let told = bench.take(&[event("c", "resolve", 5)]);
    assert_eq!(actions(&told), [Action::Resolve]);
    assert!(told[0].description.as_deref().expect("one").starts_with("0 open, 3 over.\n- resolved, high, since"));
    // What comes back begins another episode.
    let told = bench.take(&[event("b", "open", 6)]);
    assert_eq!(actions(&told), [Action::Open]);
    assert_eq!(told[0].title.as_deref(), Some("b is down"));
}

#[test]
fn what_comes_late_or_twice_opens_nothing() {
    let mut bench = Bench::default();
    bench.take(&[event("a", "open", 0), event("a", "resolve", 9)]);
    bench.restart();
    assert_eq!(bench.take(&[event("a", "open", 0), event("a", "resolve", 9)]), []);
    // The end before the beginning.
    assert_eq!(bench.take(&[event("b", "resolve", 20)]), []);
    bench.restart();
    assert_eq!(bench.take(&[event("b", "open", 19)]), []);
    // A clock that is behind: the group's time never goes back, or the sink would take it for late.
    let told = bench.take(&[event("c", "open", 15)]);
    assert_eq!((actions(&told), told[0].occurred_at), (vec![Action::Open], T0 + 20_000));
}

#[test]
fn every_change_of_its_state_and_every_note_is_told_in_order() {
    let mut bench = Bench::default();
    let note = |text: &str| json!({ "note": text, "actor": "ann" });
    let told = bench.take(&[
        event("a", "open", 0),
        event("a", "acknowledge", 1),
        event("b", "open", 2),
        with("b", "note", 3, note("look")),
        with("b", "acknowledge", 4, note("mine")),
        event("b", "resolve", 5),
        with("a", "resolve", 6, json!({ "resolution": { "code": "Fixed", "notes": "done" } })),
        event("b", "open", 7),
    ]);
    use Action::{Acknowledge, Note, Open, Resolve, Unacknowledge};
    assert_eq!(actions(&told), [Open, Acknowledge, Unacknowledge, Note, Acknowledge, Resolve, Open]);
    assert_eq!((told[3].note.as_deref(), told[3].actor.as_deref()), (Some("b is down: look"), Some("ann")));
    assert_eq!(told[4].note.as_deref(), Some("b is down: mine"));
    assert_eq!(told[5].resolution.as_ref().and_then(|r| r.code.as_deref()), Some("Fixed"));
    // A note tells no values, so that those which changed before it are told behind it.
    let told = bench.take(&[with("b", "update", 8, json!({ "severity": "low" })), with("b", "note", 9, note("so?"))]);
    assert_eq!(actions(&told), [Note, Action::Update]);
    assert_eq!(told[1].severity.as_deref(), Some("low"));
    // A note to an alert of a group that never was is nobody's.
    assert_eq!(Bench::default().take(&[with("x", "note", 0, note("hm")), event("x", "update", 1)]), []);
}

#[test]
fn the_list_is_bounded_and_the_worst_come_first() {
    let mut bench = Bench::default();
    let all: Vec<AlertEvent> = (0..9)
        .map(|n| with(&format!("a{n}"), "open", n, json!({ "severity": if n == 7 { "critical" } else { "low" } })))
        .chain([event("a1", "resolve", 20)])
        .collect();
    let told = bench.take(&all);
    let last = told.last().expect("told");
    assert_eq!(last.severity.as_deref(), Some("critical"));
    let lines: Vec<&str> = last.description.as_deref().expect("one").lines().collect();
    assert_eq!((lines[0], lines.len(), lines[4]), ("8 open, 1 over.", 5, "and 6 more"));
    assert_eq!(lines[1], "- open, critical, since 2027-01-15T08:00:07Z: a7 is down");
    assert_eq!(lines[2], "- open, low, since 2027-01-15T08:00:00Z: a0 is down");
    let digest = &last.json["digest"];
    assert_eq!((&digest["open"], &digest["total"], &digest["alerts"][0]["key"]), (&json!(8), &json!(9), &json!("a7")));
}

#[test]
fn what_changes_nothing_for_people_costs_nothing() {
    let mut bench = Bench::default();
    bench.take(&[event("a", "open", 0)]);
    assert_eq!(bench.take(&[event("a", "open", 60)]), [], "the same once more");
    assert_eq!(actions(&bench.take(&[with("a", "open", 61, json!({ "severity": "low" }))])), [Action::Update]);
}

#[test]
fn a_group_that_never_ends_forgets_alerts_that_are_over_and_still_counts_them() {
    let mut bench = Bench::default();
    bench.take(&[event("a", "open", 0), event("b", "open", 0), event("b", "resolve", 1)]);
    let day = 24 * 3_600;
    let told = bench.take(&[event("c", "open", day + 1_000)]);
    assert_eq!(told.last().and_then(|event| event.title.as_deref()), Some("3 alerts: shop"));
    bench.restart();
    let told = bench.take(&[event("c", "resolve", day + 1_001)]);
    assert!(told[0].description.as_deref().expect("one").starts_with("1 open, 2 over."), "{told:?}");
    bench.take(&[event("a", "resolve", day + 1_002)]);
    // Long after its end nothing is left of it but the rule.
    let mut out = Vec::new();
    bench.groups.apply("digest:other", &event("z", "open", 3 * day), None, 3, &mut out);
    bench.groups.finish(RULE, 3, &mut out);
    assert_eq!(bench.groups.len(), 1);
    let removed = out.iter().filter(|output| matches!(output, Output::Row(_, None))).count();
    assert_eq!(removed, 3, "its row, and those of its two alerts: {out:?}");
}

#[test]
fn a_sender_whose_clock_is_ahead_does_not_make_the_others_look_long_past() {
    let mut bench = Bench::default();
    bench.take(&[event("a", "open", 0), event("a", "resolve", 1)]);
    let ahead = event("z", "open", 365 * 24 * 3_600);
    bench.take_of("digest:other", &[ahead], Some(T0 + 2_000));
    bench.restart();
    bench.take_of("digest:other", &[event("z", "open", 3)], Some(T0 + 3_000));
    assert_eq!(bench.groups.len(), 2, "the group that is over is still known");
    assert_eq!(bench.take(&[event("a", "open", 0)]), [], "so its repetition opens nothing");
}

#[test]
fn a_row_of_somebody_else_is_told() {
    let error = Groups::default().load(b"mine", Some(b"{}")).expect_err("refused");
    assert!(error.to_string().contains("mine"), "{error}");
    let mut bench = Bench::default();
    bench.take(&[event("a", "open", 0)]);
    bench.restart();
    assert_eq!(bench.groups.rule(), Some(RULE));
}
