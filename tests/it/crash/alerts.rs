//! Translates alerts of Event Management to tickets for the oracle: the state is open or closed, the title is the
//! description, the severity takes the place of impact and urgency, and the notes are those of the alert's events, in
//! order. An alert does not keep the severity of a clear event, so a closed alert has none here. If an alert was
//! resolved before its first event could be sent, the instance has events of it but no alert, because a clear event
//! creates none; then its events are used instead.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::reference::Ticket;

/// The expected alerts, as tickets.
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
    let mut without_alert: BTreeMap<&str, Value> = BTreeMap::new();
    for event in events.iter().filter(|event| !known.contains(&text(event, "message_key"))) {
        let key = text(event, "message_key");
        assert_eq!(event["severity"], "0", "an event of {key} created no alert: {event}");
        let row = without_alert.entry(key).or_insert_with(|| json!({"message_key": key, "state": "Closed"}));
        if !text(event, "description").is_empty() {
            row["description"] = event["description"].clone();
        }
    }
    for alert in alerts.iter().chain(without_alert.values()) {
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

/// The events in the instance's log, as writes of tickets.
pub fn writes(entries: &[Value]) -> Vec<Value> {
    let events = entries.iter().filter(|entry| entry["table"] == "em_event");
    let write = |entry: &Value| {
        let fields = &entry["fields"];
        json!({"correlation_id": fields["message_key"], "fields": {"short_description": fields["description"]},
            "ghost_write": entry["ghost_write"], "error": entry["error"]})
    };
    events.map(write).collect()
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}
