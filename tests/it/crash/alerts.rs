//! Alerts of Event Management as the oracle sees tickets: open or closed, the title their description, the severity in
//! place of impact and urgency, the notes those of their events, in order. What a clear event says of the severity is not
//! kept by an alert, so a closed one has none here. An alert that was over before its first event could be sent has events
//! and no alert, since a clear event makes none; its events are judged in its place.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::reference::Ticket;

/// What alerts must be.
pub fn expected(tickets: &BTreeMap<String, Ticket>) -> BTreeMap<String, Ticket> {
    let as_alert = |ticket: &Ticket| {
        let closed = ticket.state == "6";
        let severity = match (closed, ticket.impact, ticket.urgency) {
            (true, ..) => "",
            (_, "1", _) => "1",
            (_, "2", "1") => "2",
            (_, "2", _) => "3",
            _ => "4",
        };
        Ticket { state: if closed { "closed" } else { "open" }, impact: severity, urgency: "", ..ticket.clone() }
    };
    tickets.iter().map(|(key, ticket)| (key.clone(), as_alert(ticket))).collect()
}

/// Alerts by message key, with the notes of their events as journal.
pub fn rows(alerts: &[Value], events: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut journals: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for event in events {
        let info: Value = serde_json::from_str(text(event, "additional_info")).expect("additional_info is JSON");
        if info["note"].is_string() {
            journals.entry(text(event, "message_key")).or_default().push(json!({"value": info["note"]}));
        }
    }
    let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let known: Vec<&str> = alerts.iter().map(|alert| text(alert, "message_key")).collect();
    let mut over: BTreeMap<&str, Value> = BTreeMap::new();
    for event in events.iter().filter(|event| !known.contains(&text(event, "message_key"))) {
        let key = text(event, "message_key");
        assert_eq!(event["severity"], "0", "an event of {key} made no alert: {event}");
        let row = over.entry(key).or_insert_with(|| json!({"message_key": key, "state": "Closed"}));
        if !text(event, "description").is_empty() {
            row["description"] = event["description"].clone();
        }
    }
    for alert in alerts.iter().chain(over.values()) {
        let (key, closed) = (text(alert, "message_key"), alert["state"] == "Closed");
        let row = json!({
            "state": if closed { "closed" } else { "open" },
            "short_description": alert["description"],
            "impact": if closed { "" } else { text(alert, "severity") },
            "urgency": "",
            "journal": journals.get(key),
        });
        rows.entry(key.to_owned()).or_default().push(row);
    }
    rows
}

/// The log's events as writes of tickets.
pub fn writes(entries: &[Value]) -> Vec<Value> {
    let events = entries.iter().filter(|entry| entry["table"] == "em_event");
    let write = |entry: &Value| {
        let fields = &entry["fields"];
        json!({"correlation_id": fields["message_key"], "fields": {"short_description": fields["description"]},
            "was_ghost": entry["was_ghost"], "refused": entry["refused"]})
    };
    events.map(write).collect()
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}
