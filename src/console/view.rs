//! The statuses of the routes as reasons and as JSON. Times are in milliseconds unless the name says otherwise, counts
//! are numbers, and all foreign texts (keys, messages of an instance) are JSON strings of bounded length.

use std::fmt;

use serde_json::{Map, Value, json};

use super::Console;
use crate::model::{DrainEstimate, Now, QuotaStatus};
use crate::repartition;
use crate::sink;
use crate::source;
use crate::source::State;

/// Milliseconds without progress after which a route's loop counts as stuck. It runs several times per second; its
/// longest pauses are bounded waits at the end of its work.
const STUCK_AFTER_MS: u64 = 60_000;

/// Maximum number of characters of a key or a reason; longer ones are truncated.
const MAX_TEXT_CHARS: usize = 500;

/// A reason why the bridge is not ready.
#[expect(clippy::struct_field_names, reason = "the text of a reason is its reason")]
pub struct Reason {
    /// `sink`, `source`, or `bridge` for the whole process.
    pub kind: &'static str,
    /// The route's name; empty for the whole process.
    pub route: String,
    /// One line of text.
    pub reason: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.route.is_empty() {
            write!(f, "{}: {}", self.kind, self.reason)
        } else {
            write!(f, "{} {}: {}", self.kind, self.route, self.reason)
        }
    }
}

/// Returns one text per route whose loop is stuck. `mono` is the present time on the mono clock, milliseconds.
pub fn stuck(console: &Console, mono: u64) -> Vec<String> {
    let mut stuck = Vec::new();
    for (name, handle) in &console.sinks {
        let heartbeat = handle.get().heartbeat;
        if heartbeat > 0 && mono.saturating_sub(heartbeat) > STUCK_AFTER_MS {
            stuck.push(format!(
                "sink {name}: its loop has made no progress for {} s",
                mono.saturating_sub(heartbeat) / 1000
            ));
        }
    }
    stuck
}

/// Returns why the bridge is not ready; empty if it is.
pub fn reasons(console: &Console) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if console.stopping.is_cancelled() {
        let reason = "shutting down, draining".to_owned();
        reasons.push(Reason { kind: "bridge", route: String::new(), reason });
    }
    for (name, handle) in &console.sinks {
        let found = handle.get().reasons();
        reasons.extend(found.into_iter().map(|r| Reason { kind: "sink", route: name.clone(), reason: one_line(&r) }));
    }
    for (name, _, handle) in &console.repartitions {
        let found = handle.get().reasons();
        reasons.extend(found.into_iter().map(|r| Reason { kind: "sink", route: name.clone(), reason: one_line(&r) }));
    }
    for (name, handle) in &console.sources {
        let reason = match handle.get().state {
            State::Standby | State::Polling => continue,
            State::Starting => "loading its topics".to_owned(),
            State::Waiting { reason, .. } => one_line(&reason),
            State::Stopped { reason } if reason.is_empty() => "stopped, because the process shuts down".to_owned(),
            State::Stopped { reason } => format!("stopped: {}", one_line(&reason)),
        };
        reasons.push(Reason { kind: "source", route: name.clone(), reason });
    }
    reasons
}

/// Returns the response of `/readyz?format=json`.
pub fn readiness(reasons: &[Reason]) -> Value {
    let list: Vec<Value> =
        reasons.iter().map(|r| json!({ "kind": r.kind, "route": r.route, "reason": r.reason })).collect();
    json!({ "ready": reasons.is_empty(), "reasons": list })
}

/// Returns the response of `/status`.
pub fn status(console: &Console, now: Now) -> Value {
    let with_stages = |(name, handle): &(String, sink::StatusHandle)| {
        let mut sink = sink_json(name, &handle.get(), now);
        for (_, stage, handle) in console.repartitions.iter().filter(|(route, _, _)| route == name) {
            if let Some(sink) = sink.as_object_mut() {
                sink.insert((*stage).into(), repartition_json(&handle.get()));
            }
        }
        sink
    };
    let sinks: Vec<Value> = console.sinks.iter().map(with_stages).collect();
    let sources: Vec<Value> = console.sources.iter().map(|(name, h)| source_json(name, &h.get())).collect();
    let mut status = readiness(&reasons(console));
    if let Some(status) = status.as_object_mut() {
        status.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        status.insert("time_ms".into(), now.unix.into());
        status.insert("sinks".into(), sinks.into());
        status.insert("sources".into(), sources.into());
    }
    status
}

fn sink_json(name: &str, status: &sink::Status, now: Now) -> Value {
    let s = &status.snapshot;
    let mut partitions = Map::new();
    for (partition, watermark) in &s.watermarks {
        partitions.insert(partition.to_string(), json!({ "watermark": watermark }));
    }
    for (partition, blocked) in &status.blocked_partitions {
        let entry = partitions.entry(partition.to_string()).or_insert_with(|| json!({ "watermark": null }));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("blocked_by".into(), one_line(&blocked.reason).into());
        }
    }
    let parked: Vec<Value> =
        status.parked.iter().map(|(key, reason)| json!({ "key": one_line(key), "reason": one_line(reason) })).collect();
    let kafka_error = status
        .kafka_error
        .as_ref()
        .map(|error| json!({ "message": one_line(&error.message), "age_ms": now.mono.saturating_sub(error.at) }));
    json!({
        "name": name,
        "blocked_by": status.blocked_by.as_deref().map(one_line),
        "started": status.started,
        "reasons": status.reasons().iter().map(|r| one_line(r)).collect::<Vec<_>>(),
        "partitions": partitions,
        "partitions_assigned": s.partitions,
        "partitions_loading": s.loading_partitions,
        "partitions_leased": s.leased_partitions,
        "pending_events": s.unresolved_events,
        "pending_bytes": s.unresolved_bytes,
        "active_keys": s.lanes,
        "ambiguous": s.ambiguous_lanes,
        "parked_keys": s.parked_keys,
        "ledger_entries": s.entries,
        "requests_in_flight": s.requests_in_flight,
        "quota": quota_json(&status.quota),
        "drain": drain_json(&status.drain),
        "parked": parked,
        "kafka_error": kafka_error,
        "counters": status.counts,
    })
}

/// Returns the status of a stage before a sink route.
fn repartition_json(status: &repartition::Status) -> Value {
    let mut partitions = Map::new();
    for (partition, next) in &status.partitions {
        let blocked_by = status.blocked.get(partition).map(|reason| one_line(reason));
        partitions.insert(partition.to_string(), json!({ "next_offset": next, "blocked_by": blocked_by }));
    }
    json!({
        "partitions": partitions,
        "records": status.records,
        "alerts": status.alerts,
        "transactions": status.transactions,
        "failed_transactions": status.failed_transactions,
        "lag": status.lag,
        "waiting_reason": status.waiting_reason.as_deref().map(one_line),
    })
}

/// Returns the use of the instance's request quota, by all routes of the instance in this process.
fn quota_json(quota: &QuotaStatus) -> Value {
    json!({
        "requests_per_second": quota.requests_per_second.map(two_decimals),
        "share": two_decimals(quota.share),
        "concurrency_limit": quota.concurrency_limit,
        "max_concurrency": quota.max_concurrency,
        "in_flight": quota.in_flight,
        "write_latency_ms": quota.write_latency_ms.map(two_decimals),
        "requests": {
            "normal": quota.requests.normal, "urgent": quota.requests.urgent, "source": quota.requests.source,
        },
    })
}

fn drain_json(drain: &DrainEstimate) -> Value {
    json!({
        "keys": drain.keys,
        "critical_keys": drain.critical_keys,
        "seconds": drain.seconds.map(two_decimals),
    })
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn source_json(name: &str, status: &source::Status) -> Value {
    let (state, reason) = match &status.state {
        State::Standby => ("standby", "another process runs the route, or it is not assigned yet"),
        State::Starting => ("starting", ""),
        State::Polling => ("polling", ""),
        State::Waiting { reason, .. } => ("waiting", reason.as_str()),
        State::Stopped { reason } => ("stopped", reason.as_str()),
    };
    let lag = status.instance_now.zip(status.cursor).map(|(now, cursor)| now.saturating_sub(cursor));
    let t = &status.stats;
    json!({
        "name": name,
        "state": state,
        "reason": one_line(reason),
        "cursor": status.cursor,
        "lag_seconds": lag,
        "known_rows": status.rows,
        "effective_interval_seconds": status.effective_interval,
        "warnings": status.findings.iter().map(|f| one_line(f)).collect::<Vec<_>>(),
        "counters": {
            "polls": t.polls, "requests": t.requests, "failures": t.failures, "rows_read": t.read, "already_seen": t.already_seen,
            "published": t.published, "own_changes_skipped": t.own_changes_skipped, "versions_skipped": t.versions_skipped, "orphaned_entries": t.orphaned_entries,
            "transactions": t.transactions, "failed_transactions": t.failed_transactions, "starts": t.starts,
        },
    })
}

/// Returns foreign text on one line, truncated, so that a key cannot forge a further reason.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().take(MAX_TEXT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        line.push('…');
    }
    line
}
