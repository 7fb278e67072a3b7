//! The webhook body of Prometheus Alertmanager (version 4), as any forwarder publishes it, byte for byte.
//!
//! | | by group (default) | by alert |
//! |---|---|---|
//! | a ticket is | a notification group | one alert |
//! | key | `alertmanager:group:<SHA-256 of groupKey>` | `alertmanager:alert:<fingerprint>` |
//! | events in a record | 1 | one per alert, in the order of the body |
//! | action | status of the group: firing → open, resolved → resolve | status of the alert |
//! | severity | the gravest of the firing alerts | the alert's |
//! | time | the record's timestamp; without one, the latest start (firing) or end (resolved) | the same |
//!
//! The group's hash is the value that Alertmanager itself sends to PagerDuty and Opsgenie, so that the same group
//! reaching us by two ways can be recognised. A body has no event id; a repeated notification is recognised by the
//! ticket not needing a change. The account of alerts stands in the description, so that one alert of a group that
//! starts or ends updates the ticket.
//!
//! Why the record's timestamp: an event older than what was applied counts as stale, and the times in the body are in
//! no such order. After an outage of Prometheus, Alertmanager ends an alert by its timeout and then gets it again with
//! its old start; and a group's latest start falls when its youngest alert leaves. By those times, an alert that fires
//! would be taken for an old one and get no ticket. The body's times are in the event's JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::model::severity::rank;
use crate::model::{Action, AlertEvent, Record};
use crate::systems::json::{body, cut, kind, labels, text, wrong};
use crate::systems::{DecodeError, MAX_EVENTS, MAX_KEY, time, words};

/// What is one ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// The notification group: one ticket per `groupKey`.
    #[default]
    Group,
    /// The single alert: one ticket per fingerprint.
    Alert,
}

/// Alerts of a group that are listed in its description.
const LISTED: usize = 20;

type Labels = BTreeMap<String, String>;

pub(in crate::systems) fn decode(record: &Record, by: By) -> Result<Vec<AlertEvent>, DecodeError> {
    let body = body(record)?;
    if let Some(version) = text(&body, "version", "$")?.filter(|version| version != "4") {
        return Err(wrong("$.version", format!("`{version}` is not known; version 4 is the webhook's since 2016")));
    }
    let alerts = match body.get("alerts") {
        Some(Value::Array(alerts)) => alerts,
        Some(other) => return Err(wrong("$.alerts", format!("this is {}; it must be a list", kind(other)))),
        None => return Err(wrong("$.alerts", "it is missing; is this the webhook body of Alertmanager?".into())),
    };
    if alerts.len() > MAX_EVENTS {
        let message =
            format!("there are {} alerts; set `max_alerts` of the receiver to {MAX_EVENTS} or less", alerts.len());
        return Err(DecodeError { code: "oversized", at: "$.alerts".into(), message });
    }
    let alerts: Vec<Alert> =
        alerts.iter().enumerate().map(|(index, alert)| Alert::read(alert, index)).collect::<Result<_, _>>()?;
    match by {
        By::Group => Ok(vec![group(body, &alerts, record)?]),
        By::Alert => alerts.into_iter().enumerate().map(|(index, alert)| single(&body, alert, index, record)).collect(),
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
        let at = format!("$.alerts[{index}]");
        let Value::Object(alert) = value else {
            return Err(wrong(&at, format!("this is {}; it must be an object", kind(value))));
        };
        let time = |key| Ok::<_, DecodeError>(text(alert, key, &at)?.as_deref().and_then(time::parse));
        Ok(Self {
            firing: firing(alert, &at)?,
            labels: labels(alert, "labels", &at)?,
            annotations: labels(alert, "annotations", &at)?,
            starts_at: time("startsAt")?,
            ends_at: time("endsAt")?,
            url: text(alert, "generatorURL", &at)?,
            fingerprint: text(alert, "fingerprint", &at)?,
        })
    }

    /// When what the alert tells happened. A firing alert's end lies in the future, if it is there at all.
    fn time(&self) -> Option<i64> {
        if self.firing { self.starts_at } else { self.ends_at.or(self.starts_at) }
    }

    fn severity(&self) -> &'static str {
        words::severity(self.labels.get("severity").map_or("", String::as_str))
    }

    fn name(&self) -> &str {
        self.labels.get("alertname").map_or("Alert", String::as_str)
    }
}

fn firing(of: &Map<String, Value>, at: &str) -> Result<bool, DecodeError> {
    let status = text(of, "status", at)?;
    match status.as_deref() {
        Some("firing") => Ok(true),
        Some("resolved") => Ok(false),
        other => Err(DecodeError {
            code: "unknown_action",
            at: format!("{at}.status"),
            message: format!("it is {}; it must be `firing` or `resolved`", other.unwrap_or("missing")),
        }),
    }
}

fn title_of(annotations: &Labels) -> Option<&String> {
    ["summary", "title"].iter().find_map(|name| annotations.get(*name)).filter(|text| !text.trim().is_empty())
}

fn description_of(annotations: &Labels) -> Option<&String> {
    ["description", "message"].iter().find_map(|name| annotations.get(*name)).filter(|text| !text.trim().is_empty())
}

/// What both kinds of event share.
fn event(is_firing: bool, kind: &str, key_kind: &str, id: String) -> AlertEvent {
    let action = if is_firing { Action::Open } else { Action::Resolve };
    AlertEvent {
        system: "alertmanager".into(),
        kind: kind.into(),
        key: format!("alertmanager:{key_kind}:{id}"),
        object_id: id,
        action: Some(action),
        status: words::status_of_action(action).into(),
        ..AlertEvent::default()
    }
}

fn group(body: Map<String, Value>, alerts: &[Alert], record: &Record) -> Result<AlertEvent, DecodeError> {
    // Not `text`: the hash must be of the very bytes, however long.
    let Some(group_key) = body.get("groupKey").and_then(Value::as_str).filter(|key| !key.is_empty()) else {
        let message = "it is missing; is this the webhook body of Alertmanager?".into();
        return Err(DecodeError { code: "missing_key", at: "$.groupKey".into(), message });
    };
    let is_firing = firing(&body, "$")?;
    let common = labels(&body, "commonLabels", "$")?;
    let group_labels = labels(&body, "groupLabels", "$")?;
    let annotations = labels(&body, "commonAnnotations", "$")?;
    let truncated = body.get("truncatedAlerts").and_then(Value::as_u64).unwrap_or(0);

    let id = hex::encode(Sha256::digest(group_key.as_bytes()));
    let mut event = event(is_firing, "alert_group", "group", id);
    event.url = text(&body, "externalURL", "$")?;
    event.occurred_at = record.timestamp.or_else(|| alerts.iter().filter_map(Alert::time).max()).unwrap_or(0);
    let grave = alerts.iter().filter(|a| a.firing || !is_firing).map(Alert::severity).min_by_key(|s| rank(s));
    event.severity = Some(grave.unwrap_or("unknown").to_owned());
    event.title = Some(title_of(&annotations).cloned().unwrap_or_else(|| group_title(&common, &group_labels)));
    event.description = Some(group_description(description_of(&annotations), alerts, truncated));
    event.labels = group_labels;
    event.labels.extend(common);
    let firing_count = alerts.iter().filter(|alert| alert.firing).count();
    let counts = json!({
        "total": alerts.len() as u64 + truncated, "firing": firing_count, "resolved": alerts.len() - firing_count,
    });
    event.json = full(
        &event,
        &annotations,
        vec![("time_kind", time_kind(record)), ("alert_counts", counts), ("raw", Value::Object(body))],
    );
    Ok(event)
}

/// The name of the alert and what the group has in common beside it: stable while alerts come and go.
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
    // Writing to a string can't fail.
    for alert in alerts.iter().take(LISTED) {
        let about = title_of(&alert.annotations).or_else(|| description_of(&alert.annotations)).cloned();
        let about = about.unwrap_or_else(|| {
            let labels = alert.labels.iter().filter(|(key, _)| *key != "alertname");
            let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
            format!("{} {}", alert.name(), labels.join(" "))
        });
        let state = if alert.firing { "firing" } else { "resolved" };
        let separator = if text.is_empty() { "" } else { "\n" };
        let since = alert.time().map(|at| format!(" since {}", time::show(at))).unwrap_or_default();
        let _ = write!(text, "{separator}[{state}{since}] {}", cut(about.trim(), 300));
    }
    let more = alerts.len().saturating_sub(LISTED) as u64 + truncated;
    if more > 0 {
        let _ = write!(text, "\nand {more} more");
    }
    text
}

fn single(body: &Map<String, Value>, alert: Alert, index: usize, record: &Record) -> Result<AlertEvent, DecodeError> {
    let plain = |id: &String| id.len() <= MAX_KEY / 2 && !id.chars().any(char::is_control);
    let Some(fingerprint) = alert.fingerprint.clone().filter(plain) else {
        let message = "it is missing or no fingerprint; Alertmanager sends it since version 0.19".into();
        return Err(DecodeError { code: "missing_key", at: format!("$.alerts[{index}].fingerprint"), message });
    };
    let mut event = event(alert.firing, "alert", "alert", fingerprint);
    event.url = alert.url.clone().or(text(body, "externalURL", "$")?);
    event.occurred_at = record.timestamp.or_else(|| alert.time()).unwrap_or(0);
    event.severity = Some(alert.severity().to_owned());
    event.title = Some(title_of(&alert.annotations).cloned().unwrap_or_else(|| {
        let place = alert.labels.get("instance").map(|instance| format!(" on {instance}")).unwrap_or_default();
        format!("{}{place}", alert.name())
    }));
    event.description = description_of(&alert.annotations).cloned();
    event.labels = alert.labels;
    let shown = |at: Option<i64>| at.map_or(Value::Null, |at| Value::String(time::show(at)));
    let receiver = body.get("receiver").cloned().unwrap_or(Value::Null);
    event.json = full(
        &event,
        &alert.annotations,
        vec![
            ("time_kind", time_kind(record)),
            ("receiver", receiver),
            ("starts_at", shown(alert.starts_at)),
            ("ends_at", shown(alert.ends_at)),
        ],
    );
    Ok(event)
}

/// Whether `occurred_at` is the record's time or the body's.
fn time_kind(record: &Record) -> Value {
    Value::from(if record.timestamp.is_some() { "received" } else { "event" })
}

/// The canonical form, for templates.
fn full(event: &AlertEvent, annotations: &Labels, more: Vec<(&str, Value)>) -> Value {
    let mut json = json!({
        "schema": "alert-lifecycle/1",
        "key": event.key,
        "source": { "system": event.system },
        "object": { "kind": event.kind, "id": event.object_id, "url": event.url },
        "action": event.action.map_or("", words::action_name),
        "status": event.status,
        "severity": event.severity,
        "occurred_at": time::show(event.occurred_at),
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
