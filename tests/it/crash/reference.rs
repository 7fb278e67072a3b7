//! The reference model: the expected tickets, computed from the input alone. It shares no code with the engine or the
//! mapping; it applies events one by one, as a user would.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::oracle::is_marker;

/// One alert event of the input.
#[derive(Debug, Clone)]
pub struct Event {
    pub key: String,
    pub action: &'static str,
    pub title: String,
    pub severity: &'static str,
    pub note: Option<String>,
    pub occurred_at: i64,
}

impl Event {
    /// The record's value.
    pub fn body(&self) -> String {
        let at = jiff::Timestamp::from_millisecond(self.occurred_at).expect("a time").to_string();
        let mut event = json!({"source": "test", "key": self.key, "action": self.action, "title": self.title,
            "severity": self.severity, "occurred_at": at});
        if let Some(note) = &self.note {
            event["note"] = note.clone().into();
        }
        event.to_string()
    }
}

/// An expected ticket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ticket {
    pub state: &'static str,
    pub title: String,
    pub impact: &'static str,
    pub urgency: &'static str,
    pub notes: Vec<String>,
}

/// Applies events in order, and returns the tickets by key. Only an `open` event creates a ticket.
pub fn expected_tickets(events: &[Event]) -> BTreeMap<String, Ticket> {
    let mut tickets: BTreeMap<String, Ticket> = BTreeMap::new();
    for event in events {
        let known = tickets.contains_key(&event.key);
        if !known && event.action != "open" {
            continue;
        }
        let ticket = tickets.entry(event.key.clone()).or_insert_with(|| Ticket { state: "1", ..Ticket::default() });
        ticket.state = match (event.action, ticket.state) {
            ("open", "6") | ("acknowledge", "1") => "2",
            ("resolve", _) => "6",
            (_, state) => state,
        };
        if event.action != "note" {
            ticket.title.clone_from(&event.title);
            (ticket.impact, ticket.urgency) = match event.severity {
                "critical" => ("1", "1"),
                "high" => ("2", "1"),
                "medium" => ("2", "2"),
                _ => ("3", "2"),
            };
        }
        ticket.notes.extend(event.note.clone());
    }
    tickets
}

/// `count` events of `keys` alerts, generated from a seed. The first events open one alert each. `start` is the time of
/// the first event in Unix milliseconds.
pub fn random_events(count: usize, keys: usize, seed: u64, start: i64) -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut events: Vec<Event> = Vec::new();
    for number in 0..count {
        let key = if number < keys { number } else { random.usize(0..keys) };
        let is_new = number < keys;
        let action = if is_new {
            "open"
        } else {
            ["open", "update", "update", "update", "note", "note", "acknowledge", "resolve"][random.usize(0..8)]
        };
        let note = match (action, random.u8(0..4)) {
            ("note", 0) => Some("checked".to_owned()),
            ("note", _) => Some(format!("note {number}")),
            ("resolve", 0) => Some(format!("over {number}")),
            _ => None,
        };
        events.push(Event {
            key: format!("test:alert:{key}"),
            action,
            title: format!("alert {key} #{number}"),
            severity: ["critical", "high", "medium", "low"][random.usize(0..4)],
            note,
            occurred_at: start + i64::try_from(number).unwrap_or(0),
        });
    }
    events
}

/// The notes of a row's journal in journal order, as (text, marker). Markers name `topic`; text without a marker is
/// left out.
pub fn notes(row: &Value, topic: &str) -> Vec<(String, String)> {
    let mut notes = Vec::new();
    for entry in row["journal"].as_array().into_iter().flatten() {
        let mut text: Vec<&str> = Vec::new();
        for line in entry["value"].as_str().unwrap_or_default().lines() {
            if is_marker(line, topic) {
                notes.push((text.join("\n").trim().to_owned(), line.to_owned()));
                text.clear();
            } else {
                text.push(line);
            }
        }
    }
    notes
}
