//! A group as an alert event: what its ticket says.
//!
//! Its title, its counts and a list of its alerts, the open and worst ones first and the others in the order in which they
//! opened. The list is bounded; the counts are of all. The same is there for templates, as `event.digest`.

use serde_json::{Value, json};

use super::group::{AlertStatus, Group, Member};
use crate::codec::json::rfc3339;
use crate::mapping::{action_name, group_name};
use crate::model::severity::rank;
use crate::model::{Action, AlertEvent};

/// The body of a canonical alert event about a group. `event` is what brought it about, where it is told at once; `list`
/// is how many alerts are named.
pub fn body(key: &str, group: &Group, action: Action, event: Option<&AlertEvent>, list: usize) -> Vec<u8> {
    let facts = &group.facts;
    let name = group_name(key);
    let mut shown: Vec<(&String, &Member)> = group.shown().collect();
    let open = shown.iter().filter(|(_, member)| member.open).count();
    let total = shown.len() as u64 + facts.past;
    shown.sort_by_key(|(key, m)| (!m.open, if m.open { rank(&m.severity) } else { 0 }, m.since, *key));
    let first = shown.first().map_or(name, |(_, member)| member.title.as_str());
    let title = if total == 1 { first.to_owned() } else { format!("{total} alerts: {name}") };
    let mut lines = vec![format!("{open} open, {} over.", total - open as u64)];
    lines.extend(shown.iter().take(list).map(|(_, member)| line(member)));
    let more = total.saturating_sub(shown.len().min(list) as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    let members: Vec<Value> = shown.iter().take(list).map(|(key, member)| one(key, member)).collect();
    let mut body = json!({
        "schema": "alert-lifecycle/1",
        "source": { "system": facts.system, "instance": facts.instance },
        "object": { "kind": "alert_group", "id": name },
        "key": key,
        "action": action_name(action),
        "status": status(facts.status),
        "occurred_at": rfc3339(facts.told),
        "title": title,
        "description": lines.join("\n"),
        "severity": facts.severity,
        "labels": facts.labels,
        "digest": { "group": name, "open": open, "total": total, "alerts": members },
    });
    if let (Some(event), Some(fields)) = (event, body.as_object_mut()) {
        if let Some(note) = &event.note {
            let title = group.members.get(&event.key).map_or(event.key.as_str(), |member| member.title.as_str());
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

fn line(member: &Member) -> String {
    format!("- {}, {}, since {}: {}", state(member), member.severity, rfc3339(member.since), member.title)
}

fn one(key: &str, member: &Member) -> Value {
    json!({
        "key": key,
        "title": member.title,
        "severity": member.severity,
        "status": state(member),
        "since": rfc3339(member.since),
    })
}

fn state(member: &Member) -> &'static str {
    match (member.open, member.acknowledged) {
        (true, true) => "acknowledged",
        (true, false) => "open",
        (false, _) => "resolved",
    }
}

fn status(standing: AlertStatus) -> &'static str {
    match standing {
        AlertStatus::New | AlertStatus::Open => "open",
        AlertStatus::Acknowledged => "acknowledged",
        AlertStatus::Over => "resolved",
    }
}
