//! The webhook body of Prometheus Alertmanager (version 4), as published unchanged by any forwarder.
//!
//! | | `ticket_per: group` (default) | `ticket_per: alert` |
//! |---|---|---|
//! | one ticket per | notification group | alert |
//! | key | `alertmanager:group:<SHA-256 of groupKey>` | `alertmanager:alert:<fingerprint>` |
//! | events in a record | 1 | one per alert, in the order of the body |
//! | action | status of the group: firing → open, resolved → resolve | status of the alert |
//! | severity | the highest of the firing alerts | the alert's |
//! | time | the record's timestamp; without one, the latest start (firing) or end (resolved) | the same |
//!
//! The group's hash is the value that Alertmanager itself sends to PagerDuty and Opsgenie, so that the same group can
//! be identified if it arrives by two paths. A body has no event id; a repeated notification has no effect because the
//! ticket is already up to date. The description lists the alerts, so that an alert of a group that starts or ends
//! updates the ticket.
//!
//! A body with `truncatedAlerts` never resolves a group: its status is that of the alerts that it lists.
//!
//! Why the record's timestamp: an event older than the last applied one is stale, and the times in the body do not have
//! that order. After an outage of Prometheus, Alertmanager resolves an alert by its timeout and then receives it again
//! with its old start; and a group's latest start decreases when its youngest alert leaves. With those times, a firing
//! alert would be considered stale and get no ticket. The event's JSON contains the body's times.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::model::severity::rank;
use crate::model::{Action, AlertEvent, Record};
use crate::systems::json::{body, json_type, labels, text, truncate, undecodable};
use crate::systems::{DecodeError, MAX_EVENTS, MAX_KEY, names, time};

/// What gets a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TicketPer {
    /// Each notification group, by its `groupKey`.
    #[default]
    Group,
    /// Each alert, by its fingerprint.
    Alert,
}

/// Maximum number of alerts of a group that its description lists.
const MAX_LISTED: usize = 20;

type Labels = BTreeMap<String, String>;

pub(in crate::systems) fn decode(record: &Record, ticket_per: TicketPer) -> Result<Vec<AlertEvent>, DecodeError> {
    let body = body(record)?;
    if let Some(version) = text(&body, "version", "$")?.filter(|version| version != "4") {
        return Err(undecodable(
            "$.version",
            format!("unknown version `{version}`; Alertmanager's webhook has version 4 since 2016"),
        ));
    }
    let alerts = match body.get("alerts") {
        Some(Value::Array(alerts)) => alerts,
        Some(other) => return Err(undecodable("$.alerts", format!("expected a list, found {}", json_type(other)))),
        None => return Err(undecodable("$.alerts", "missing; is this the webhook body of Alertmanager?".into())),
    };
    if alerts.len() > MAX_EVENTS {
        let message =
            format!("there are {} alerts; set `max_alerts` of the receiver to {MAX_EVENTS} or less", alerts.len());
        return Err(DecodeError { code: "oversized", path: "$.alerts".into(), message });
    }
    let alerts: Vec<Alert> =
        alerts.iter().enumerate().map(|(index, alert)| Alert::read(alert, index)).collect::<Result<_, _>>()?;
    match ticket_per {
        TicketPer::Group => Ok(vec![group_event(body, &alerts, record)?]),
        TicketPer::Alert => {
            alerts.into_iter().enumerate().map(|(index, alert)| alert_event(&body, alert, index, record)).collect()
        }
    }
}

/// One alert of the body.
struct Alert {
    firing: bool,
    labels: Labels,
    annotations: Labels,
    starts_at: Option<i64>,
    ends_at: Option<i64>,
    url: Option<String>,
    fingerprint: Option<String>,
}

impl Alert {
    fn read(value: &Value, index: usize) -> Result<Self, DecodeError> {
        let path = format!("$.alerts[{index}]");
        let Value::Object(alert) = value else {
            return Err(undecodable(&path, format!("expected an object, found {}", json_type(value))));
        };
        let time = |key| Ok::<_, DecodeError>(text(alert, key, &path)?.as_deref().and_then(time::parse));
        Ok(Self {
            firing: parse_firing(alert, &path)?,
            labels: labels(alert, "labels", &path)?,
            annotations: labels(alert, "annotations", &path)?,
            starts_at: time("startsAt")?,
            ends_at: time("endsAt")?,
            url: text(alert, "generatorURL", &path)?,
            fingerprint: text(alert, "fingerprint", &path)?,
        })
    }

    /// Returns the time of the last state change. The end of a firing alert is in the future or missing, so it is
    /// ignored.
    fn time(&self) -> Option<i64> {
        if self.firing { self.starts_at } else { self.ends_at.or(self.starts_at) }
    }

    fn severity(&self) -> &'static str {
        names::severity(self.labels.get("severity").map_or("", String::as_str))
    }

    fn name(&self) -> &str {
        self.labels.get("alertname").map_or("Alert", String::as_str)
    }
}

fn parse_firing(parent: &Map<String, Value>, path: &str) -> Result<bool, DecodeError> {
    let status = text(parent, "status", path)?;
    match status.as_deref() {
        Some("firing") => Ok(true),
        Some("resolved") => Ok(false),
        other => Err(DecodeError {
            code: "unknown_action",
            path: format!("{path}.status"),
            message: format!("expected `firing` or `resolved`, found {}", other.unwrap_or("nothing")),
        }),
    }
}

fn title_of(annotations: &Labels) -> Option<&String> {
    ["summary", "title"].iter().find_map(|name| annotations.get(*name)).filter(|text| !text.trim().is_empty())
}

fn description_of(annotations: &Labels) -> Option<&String> {
    ["description", "message"].iter().find_map(|name| annotations.get(*name)).filter(|text| !text.trim().is_empty())
}

/// Returns an event with the fields that groups and alerts have in common.
fn base_event(is_firing: bool, kind: &str, key_kind: &str, id: String) -> AlertEvent {
    let action = if is_firing { Action::Open } else { Action::Resolve };
    AlertEvent {
        system: "alertmanager".into(),
        kind: kind.into(),
        key: format!("alertmanager:{key_kind}:{id}"),
        object_id: id,
        action: Some(action),
        status: names::status_after(action).into(),
        ..AlertEvent::default()
    }
}

fn group_event(body: Map<String, Value>, alerts: &[Alert], record: &Record) -> Result<AlertEvent, DecodeError> {
    // Not `text`, which truncates: the hash needs all bytes.
    let Some(group_key) = body.get("groupKey").and_then(Value::as_str).filter(|key| !key.is_empty()) else {
        let message = "missing; is this the webhook body of Alertmanager?".into();
        return Err(DecodeError { code: "missing_key", path: "$.groupKey".into(), message });
    };
    let is_firing = parse_firing(&body, "$")?;
    let common = labels(&body, "commonLabels", "$")?;
    let group_labels = labels(&body, "groupLabels", "$")?;
    let annotations = labels(&body, "commonAnnotations", "$")?;
    let truncated = body.get("truncatedAlerts").and_then(Value::as_u64).unwrap_or(0);

    let id = hex::encode(Sha256::digest(group_key.as_bytes()));
    let mut event = base_event(is_firing, "alert_group", "group", id);
    event.url = text(&body, "externalURL", "$")?;
    event.occurred_at = record.timestamp.or_else(|| alerts.iter().filter_map(Alert::time).max()).unwrap_or(0);
    let worst_severity = alerts.iter().filter(|a| a.firing || !is_firing).map(Alert::severity).min_by_key(|s| rank(s));
    event.severity = Some(worst_severity.unwrap_or("unknown").to_owned());
    let oldest_start = alerts.iter().filter(|alert| alert.firing).filter_map(|alert| alert.starts_at).min();
    event.episode = oldest_start.map(time::format_rfc3339);
    if !is_firing && truncated > 0 {
        // Alertmanager computes the status from the alerts that it lists: those that it left out may be firing.
        event.action = Some(Action::Update);
        event.status = "unknown".into();
        event.severity = None;
    }
    event.title = Some(title_of(&annotations).cloned().unwrap_or_else(|| group_title(&common, &group_labels)));
    event.description = Some(group_description(description_of(&annotations), alerts, truncated));
    event.labels = group_labels;
    event.labels.extend(common);
    let firing_count = alerts.iter().filter(|alert| alert.firing).count();
    let counts = json!({
        "total": alerts.len() as u64 + truncated, "firing": firing_count, "resolved": alerts.len() - firing_count,
    });
    event.json = canonical_json(
        &event,
        &annotations,
        vec![("time_kind", time_kind(record)), ("alert_counts", counts), ("raw", Value::Object(body))],
    );
    Ok(event)
}

/// Returns the alert name and the other group labels. The title is stable while alerts of the group start and end.
fn group_title(common: &Labels, group_labels: &Labels) -> String {
    let name = common.get("alertname").or_else(|| group_labels.get("alertname")).map_or("Alerts", String::as_str);
    let rest: Vec<String> = group_labels
        .iter()
        .filter(|(key, _)| *key != "alertname")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if rest.is_empty() { name.to_owned() } else { format!("{name} ({})", rest.join(", ")) }
}

fn group_description(common: Option<&String>, alerts: &[Alert], truncated: u64) -> String {
    let mut text = common.cloned().unwrap_or_default();
    if alerts.len() < 2 && truncated == 0 && common.is_some() {
        return text;
    }
    // Writing to a string never fails.
    for alert in alerts.iter().take(MAX_LISTED) {
        let about = title_of(&alert.annotations).or_else(|| description_of(&alert.annotations)).cloned();
        let about = about.unwrap_or_else(|| {
            let labels = alert.labels.iter().filter(|(key, _)| *key != "alertname");
            let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
            format!("{} {}", alert.name(), labels.join(" "))
        });
        let state = if alert.firing { "firing" } else { "resolved" };
        let separator = if text.is_empty() { "" } else { "\n" };
        let since = alert.time().map(|ms| format!(" since {}", time::format_rfc3339(ms))).unwrap_or_default();
        let _ = write!(text, "{separator}[{state}{since}] {}", truncate(about.trim(), 300));
    }
    let more = alerts.len().saturating_sub(MAX_LISTED) as u64 + truncated;
    if more > 0 {
        let _ = write!(text, "\nand {more} more");
    }
    text
}

fn alert_event(
    body: &Map<String, Value>,
    alert: Alert,
    index: usize,
    record: &Record,
) -> Result<AlertEvent, DecodeError> {
    let is_valid = |id: &String| id.len() <= MAX_KEY / 2 && !id.chars().any(char::is_control);
    let Some(fingerprint) = alert.fingerprint.clone().filter(is_valid) else {
        let message = "missing or invalid; Alertmanager sends it since version 0.19".into();
        return Err(DecodeError { code: "missing_key", path: format!("$.alerts[{index}].fingerprint"), message });
    };
    let mut event = base_event(alert.firing, "alert", "alert", fingerprint);
    event.url = alert.url.clone().or(text(body, "externalURL", "$")?);
    event.occurred_at = record.timestamp.or_else(|| alert.time()).unwrap_or(0);
    event.severity = Some(alert.severity().to_owned());
    event.episode = alert.starts_at.filter(|_| alert.firing).map(time::format_rfc3339);
    event.title = Some(title_of(&alert.annotations).cloned().unwrap_or_else(|| {
        let suffix = alert.labels.get("instance").map(|instance| format!(" on {instance}")).unwrap_or_default();
        format!("{}{suffix}", alert.name())
    }));
    event.description = description_of(&alert.annotations).cloned();
    event.labels = alert.labels;
    let json_time = |ms: Option<i64>| ms.map_or(Value::Null, |ms| Value::String(time::format_rfc3339(ms)));
    let receiver = body.get("receiver").cloned().unwrap_or(Value::Null);
    event.json = canonical_json(
        &event,
        &alert.annotations,
        vec![
            ("time_kind", time_kind(record)),
            ("receiver", receiver),
            ("starts_at", json_time(alert.starts_at)),
            ("ends_at", json_time(alert.ends_at)),
        ],
    );
    Ok(event)
}

/// Returns whether `occurred_at` is the record's timestamp (`received`) or the body's time (`event`).
fn time_kind(record: &Record) -> Value {
    Value::from(if record.timestamp.is_some() { "received" } else { "event" })
}

/// Returns the event in the canonical format, for templates.
fn canonical_json(event: &AlertEvent, annotations: &Labels, more: Vec<(&str, Value)>) -> Value {
    let mut json = json!({
        "schema": "alert-lifecycle/1",
        "key": event.key,
        "source": { "system": event.system },
        "object": { "kind": event.kind, "id": event.object_id, "url": event.url },
        "action": event.action.map_or("", names::action_name),
        "status": event.status,
        "severity": event.severity,
        "occurred_at": time::format_rfc3339(event.occurred_at),
        "title": event.title,
        "description": event.description,
        "labels": event.labels,
        "annotations": annotations,
    });
    if let Value::Object(json) = &mut json {
        json.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    }
    json
}
