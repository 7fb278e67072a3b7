//! The alert event of a group, with the text of its ticket.
//!
//! It contains a title, counts, and a list of the alerts: open alerts first, the highest severity first, and then in
//! the order in which they opened. The list is limited; the counts are of all alerts. In templates the same data is
//! available as `event.grouping`.

use serde_json::{Value, json};

use super::group::{Group, GroupStatus, MemberAlert};
use crate::codec::json::rfc3339;
use crate::mapping::{action_name, group_name};
use crate::model::severity::rank;
use crate::model::{Action, AlertEvent};

/// Returns the body of a canonical alert event about a group. `event` is the alert's event that caused it, if a single
/// one did; `max_listed` limits the list of alerts.
pub fn body(key: &str, group: &Group, action: Action, event: Option<&AlertEvent>, max_listed: usize) -> Vec<u8> {
    let state = &group.state;
    let name = group_name(key);
    let mut alerts: Vec<(&String, &MemberAlert)> = group.episode_alerts().collect();
    let open = alerts.iter().filter(|(_, alert)| alert.open).count();
    let total = alerts.len() as u64 + state.forgotten;
    alerts.sort_by_key(|(key, a)| (!a.open, if a.open { rank(&a.severity) } else { 0 }, a.since, *key));
    let first = alerts.first().map_or(name, |(_, alert)| alert.title.as_str());
    let title = if total == 1 { first.to_owned() } else { format!("{total} alerts: {name}") };
    let mut lines = vec![format!("{open} open, {} over.", total - open as u64)];
    lines.extend(alerts.iter().take(max_listed).map(|(_, alert)| alert_line(alert)));
    let unlisted = total.saturating_sub(alerts.len().min(max_listed) as u64);
    if unlisted > 0 {
        lines.push(format!("and {unlisted} more"));
    }
    let listed: Vec<Value> = alerts.iter().take(max_listed).map(|(key, alert)| alert_json(key, alert)).collect();
    let mut body = json!({
        "schema": "alert-lifecycle/1",
        "source": { "system": state.system, "instance": state.instance },
        "object": { "kind": "alert_group", "id": name },
        "key": key,
        "action": action_name(action),
        "status": group_status(state.status),
        "occurred_at": rfc3339(state.time),
        "title": title,
        "description": lines.join("\n"),
        "severity": state.severity,
        "labels": state.labels,
        "grouping": { "group": name, "open": open, "total": total, "alerts": listed },
    });
    let oldest = alerts.iter().filter(|(_, alert)| alert.open).map(|(_, alert)| alert.since).min();
    if let (Some(since), Some(fields)) = (oldest, body.as_object_mut()) {
        fields.insert("episode".into(), json!(rfc3339(since)));
    }
    if let (Some(event), Some(fields)) = (event, body.as_object_mut()) {
        if let Some(note) = &event.note {
            let title = group.alerts.get(&event.key).map_or(event.key.as_str(), |alert| alert.title.as_str());
            fields.insert("note".into(), json!({ "body": format!("{title}: {note}") }));
        }
        if let Some(actor) = &event.actor {
            fields.insert("actor".into(), json!({ "name": actor }));
        }
        if let Some(resolution) = event.resolution.as_ref().filter(|_| action.closes()) {
            let (reason, code, notes) = (&resolution.reason, &resolution.code, &resolution.notes);
            fields.insert("resolution".into(), json!({ "reason": reason, "code": code, "notes": notes }));
        }
    }
    body.to_string().into_bytes()
}

fn alert_line(alert: &MemberAlert) -> String {
    format!("- {}, {}, since {}: {}", alert_status(alert), alert.severity, rfc3339(alert.since), alert.title)
}

fn alert_json(key: &str, alert: &MemberAlert) -> Value {
    json!({
        "key": key,
        "title": alert.title,
        "severity": alert.severity,
        "status": alert_status(alert),
        "since": rfc3339(alert.since),
    })
}

fn alert_status(alert: &MemberAlert) -> &'static str {
    match (alert.open, alert.acknowledged) {
        (true, true) => "acknowledged",
        (true, false) => "open",
        (false, _) => "resolved",
    }
}

fn group_status(status: GroupStatus) -> &'static str {
    match status {
        GroupStatus::New | GroupStatus::Open => "open",
        GroupStatus::Acknowledged => "acknowledged",
        GroupStatus::Resolved => "resolved",
    }
}
