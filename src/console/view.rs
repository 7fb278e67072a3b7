//! What is shown: the routes' statuses as reasons and as JSON. Times leave as milliseconds, counts as numbers, and
//! every text of others (keys, an instance's words) as a JSON string of bounded length.

use std::fmt;

use serde_json::{Map, Value, json};

use super::Console;
use crate::model::Now;
use crate::repartition;
use crate::sink;
use crate::source;
use crate::source::State;

/// A loop that has not turned for so long (milliseconds) is stuck; it turns several times a second, and its longest
/// pauses are the bounded ends of work.
const STUCK: u64 = 60_000;

/// Most characters of a key or a reason that are shown.
const SHOWN: usize = 500;

/// Why the bridge is not ready.
#[expect(clippy::struct_field_names, reason = "a reason is given in words")]
pub struct Reason {
    /// `sink`, `source`, or `bridge` for all of it.
    pub kind: &'static str,
    /// The route.
    pub route: String,
    /// In words, on one line.
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

/// Loops that have not turned for too long.
pub fn stuck(console: &Console, mono: u64) -> Vec<String> {
    let mut stuck = Vec::new();
    for (name, handle) in &console.routes {
        let pulse = handle.get().pulse;
        if pulse > 0 && mono.saturating_sub(pulse) > STUCK {
            stuck.push(format!("sink {name}: its loop has stood still for {} s", mono.saturating_sub(pulse) / 1000));
        }
    }
    stuck
}

/// Why the bridge is not ready; empty where it is.
pub fn reasons(console: &Console) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if console.stopping.is_cancelled() {
        let reason = "is stopping: finishes what is under way".to_owned();
        reasons.push(Reason { kind: "bridge", route: String::new(), reason });
    }
    for (name, handle) in &console.routes {
        let found = handle.get().reasons();
        reasons.extend(found.into_iter().map(|r| Reason { kind: "sink", route: name.clone(), reason: one_line(&r) }));
    }
    for (name, _, handle) in &console.repartitions {
        let found = handle.get().reasons();
        reasons.extend(found.into_iter().map(|r| Reason { kind: "sink", route: name.clone(), reason: one_line(&r) }));
    }
    for (name, handle) in &console.sources {
        let reason = match handle.snapshot().state {
            State::Standby | State::Polling => continue,
            State::Starting => "is reading its topics".to_owned(),
            State::Waiting { reason, .. } => one_line(&reason),
            State::Stopped { reason } if reason.is_empty() => "has stopped with the process".to_owned(),
            State::Stopped { reason } => format!("has stopped: {}", one_line(&reason)),
        };
        reasons.push(Reason { kind: "source", route: name.clone(), reason });
    }
    reasons
}

/// The answer of `/readyz?format=json`.
pub fn readiness(reasons: &[Reason]) -> Value {
    let list: Vec<Value> =
        reasons.iter().map(|r| json!({ "kind": r.kind, "route": r.route, "reason": r.reason })).collect();
    json!({ "ready": reasons.is_empty(), "reasons": list })
}

/// The answer of `/status`.
pub fn status(console: &Console, now: Now) -> Value {
    let of_sink = |(name, handle): &(String, sink::StatusHandle)| {
        let mut shown = of_sink(name, &handle.get(), now);
        for (_, stage, handle) in console.repartitions.iter().filter(|(route, _, _)| route == name) {
            if let Some(shown) = shown.as_object_mut() {
                shown.insert((*stage).into(), of_repartition(&handle.get()));
            }
        }
        shown
    };
    let sinks: Vec<Value> = console.routes.iter().map(of_sink).collect();
    let sources: Vec<Value> = console.sources.iter().map(|(name, h)| of_source(name, &h.snapshot())).collect();
    let mut status = readiness(&reasons(console));
    if let Some(status) = status.as_object_mut() {
        status.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        status.insert("at".into(), now.unix.into());
        status.insert("sinks".into(), sinks.into());
        status.insert("sources".into(), sources.into());
    }
    status
}

fn of_sink(name: &str, status: &sink::Status, now: Now) -> Value {
    let s = &status.snapshot;
    let mut partitions = Map::new();
    for (partition, watermark) in &s.watermarks {
        partitions.insert(partition.to_string(), json!({ "watermark": watermark }));
    }
    for (partition, held) in &status.held {
        let shown = partitions.entry(partition.to_string()).or_insert_with(|| json!({ "watermark": null }));
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("held".into(), one_line(&held.held).into());
        }
    }
    let parked: Vec<Value> =
        status.parked.iter().map(|(key, why)| json!({ "key": one_line(key), "reason": one_line(why) })).collect();
    let trouble = status
        .trouble
        .as_ref()
        .map(|(what, at)| json!({ "what": one_line(what), "ago_ms": now.mono.saturating_sub(*at) }));
    json!({
        "name": name,
        "standing": status.blocked_by.as_deref().map(one_line),
        "started": status.started,
        "reasons": status.reasons().iter().map(|r| one_line(r)).collect::<Vec<_>>(),
        "partitions": partitions,
        "partitions_held": s.partitions.0,
        "partitions_loading": s.partitions.1,
        "partitions_leased": s.leased,
        "unresolved_events": s.unresolved,
        "unresolved_bytes": s.bytes,
        "lanes": s.lanes,
        "in_doubt": s.doubts,
        "keys_parked": s.parked,
        "ledger_entries": s.entries,
        "requests_in_flight": s.requests,
        "plan": plan(status),
        "parked": parked,
        "trouble": trouble,
        "counts": status.counts,
    })
}

/// The re-keying of a route.
fn of_repartition(status: &repartition::Status) -> Value {
    let mut partitions = Map::new();
    for (partition, next) in &status.partitions {
        let held = status.refused.get(partition).map(|why| one_line(why));
        partitions.insert(partition.to_string(), json!({ "next": next, "held": held }));
    }
    json!({
        "partitions": partitions,
        "records": status.records,
        "alerts": status.alerts,
        "transactions": status.transactions,
        "failed_transactions": status.failed,
        "lag": status.lag,
        "trouble": status.trouble.as_deref().map(one_line),
    })
}

/// Who spends the quota, and when the backlog ends.
fn plan(status: &sink::Status) -> Value {
    let (plan, backlog) = (&status.plan, &status.backlog);
    let round = |value: Option<f64>| value.map(|value| (value * 100.0).round() / 100.0);
    let [sink, urgent, source] = plan.spent;
    json!({
        "requests_per_second": round(plan.per_second),
        "share": round(Some(plan.share)),
        "requests_at_once": plan.at_once.0,
        "requests_at_once_most": plan.at_once.1,
        "requests_out": plan.out,
        "write_latency_ms": round(plan.latency),
        "spent": { "sink": sink, "urgent": urgent, "source": source },
        "backlog_keys": backlog.keys,
        "backlog_critical_keys": backlog.critical,
        "backlog_seconds": round(backlog.seconds),
    })
}

fn of_source(name: &str, status: &source::Status) -> Value {
    let (state, reason) = match &status.state {
        State::Standby => ("standby", "another instance runs it, or none has been given it yet"),
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
        "rows": status.rows,
        "stretched_seconds": status.stretched,
        "findings": status.findings.iter().map(|f| one_line(f)).collect::<Vec<_>>(),
        "counts": {
            "polls": t.polls, "requests": t.requests, "failures": t.failures, "read": t.read, "seen": t.seen,
            "published": t.published, "echoes": t.echoes, "skipped": t.skipped, "orphans": t.orphans,
            "transactions": t.transactions, "failed_transactions": t.failed_transactions, "starts": t.starts,
        },
    })
}

/// Others' words on one line, so that a reason stays a line and a key can't forge one.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        line.push('…');
    }
    line
}
