//! Every metric of the bridge: name, kind, labels and meaning in one closed list. `/metrics` exposes them, and a test
//! checks the list in the documentation against this one.

#![expect(clippy::disallowed_macros, reason = "this module is the list of metrics")]

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::engine::dispatcher::Snapshot;
use crate::engine::event::{BlockReason, Observation};
use crate::model::{DrainEstimate, QuotaStatus};

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Name, kind, labels and help text of every metric.
pub const ALL: &[(&str, Kind, &str, &str)] = &[
    ("nowbridge_records_received_total", Kind::Counter, "route", "Records read from the route's topic"),
    (
        "nowbridge_events_applied_total",
        Kind::Counter,
        "route, outcome",
        "Alert events applied by a write, by the outcome of the write",
    ),
    ("nowbridge_writes_total", Kind::Counter, "route, outcome", "Writes that the instance applied, by outcome"),
    (
        "nowbridge_events_skipped_total",
        Kind::Counter,
        "route, reason",
        "Alert events skipped, by reason: repeated, outdated, no ticket to update",
    ),
    (
        "nowbridge_unchanged_updates_total",
        Kind::Counter,
        "route",
        "Updates skipped because the ticket was already up to date",
    ),
    ("nowbridge_dead_letters_total", Kind::Counter, "route, code", "Dead letters written, by error code"),
    (
        "nowbridge_ambiguous_writes_total",
        Kind::Counter,
        "route, settled",
        "Writes of unknown outcome: counted when the outcome becomes unknown (settled=no), and when verification settles \
         it (settled=applied, settled=not_applied)",
    ),
    (
        "nowbridge_ineffective_writes_total",
        Kind::Counter,
        "route",
        "Writes that were applied, but whose ticket has another state than the one sent, or lacks the correlation",
    ),
    (
        "nowbridge_outdated_state_changes_total",
        Kind::Counter,
        "route",
        "Changes of state that were not applied to an open ticket, because a newer one of the alert was before",
    ),
    (
        "nowbridge_future_events_total",
        Kind::Counter,
        "route",
        "Events dated more than a minute after their receipt: their receipt counts as their time",
    ),
    (
        "nowbridge_user_edits_preserved_total",
        Kind::Counter,
        "route",
        "Column values not written because a user had changed the column",
    ),
    (
        "nowbridge_park_transitions_total",
        Kind::Counter,
        "route, transition",
        "Keys parked after a rejected record (parked), released (released), and still parked after a redrive \
         (still_parked)",
    ),
    (
        "nowbridge_ledger_entries_expired_total",
        Kind::Counter,
        "route",
        "Ledger entries removed after the reopen window",
    ),
    ("nowbridge_duplicate_tickets_total", Kind::Counter, "route", "Look-ups that found more than one ticket for a key"),
    ("nowbridge_missing_tickets_total", Kind::Counter, "route", "Tickets found deleted or no longer visible"),
    (
        "nowbridge_ledger_tokens_renewed_total",
        Kind::Counter,
        "route",
        "Partitions taken over again because the outcome of a ledger write was unknown",
    ),
    ("nowbridge_results_lost_total", Kind::Counter, "route", "Records of the results topic that Kafka did not accept"),
    (
        "nowbridge_write_latency_seconds",
        Kind::Histogram,
        "route",
        "Time from receiving the first record of a write to the response that it is applied",
    ),
    ("nowbridge_pending_events", Kind::Gauge, "route", "Alert events received and not resolved"),
    ("nowbridge_pending_bytes", Kind::Gauge, "route", "Bytes of the records of pending events in memory"),
    ("nowbridge_active_keys", Kind::Gauge, "route", "Keys with pending events"),
    ("nowbridge_ambiguous_keys", Kind::Gauge, "route", "Keys whose last write has an unknown outcome"),
    ("nowbridge_parked_keys", Kind::Gauge, "route", "Keys whose records become dead letters after a rejected one"),
    ("nowbridge_ledger_entries", Kind::Gauge, "route", "Keys with a ledger entry in the assigned partitions"),
    ("nowbridge_assigned_partitions", Kind::Gauge, "route", "Partitions assigned to this member"),
    ("nowbridge_leased_partitions", Kind::Gauge, "route", "Assigned partitions whose lease holds"),
    (
        "nowbridge_requests_in_flight",
        Kind::Gauge,
        "route",
        "Requests without a response yet, of all routes of the instance in this process",
    ),
    (
        "nowbridge_concurrency_limit",
        Kind::Gauge,
        "route",
        "Requests that may be in flight at present, of all routes of the instance in this process; adapts to the \
         instance's load",
    ),
    (
        "nowbridge_requests_total",
        Kind::Counter,
        "route, class",
        "Requests to the route's instance by all routes of this process, by class: normal, urgent, source",
    ),
    (
        "nowbridge_quota_requests_per_second",
        Kind::Gauge,
        "route",
        "Requests per second that sink routes may send, by the configured rate or a rule of the instance; absent without \
         either",
    ),
    ("nowbridge_quota_share_ratio", Kind::Gauge, "route", "This member's share of the sink routes' quota, 0 to 1"),
    ("nowbridge_waiting_keys", Kind::Gauge, "route", "Keys that wait for a request"),
    ("nowbridge_waiting_critical_keys", Kind::Gauge, "route", "Critical keys that wait for a request"),
    (
        "nowbridge_drain_estimate_seconds",
        Kind::Gauge,
        "route",
        "Estimated time until all waiting keys are written, at the present rate; NaN while the rate is unknown",
    ),
    (
        "nowbridge_route_blocked",
        Kind::Gauge,
        "route, reason",
        "1 while the route is blocked for this reason, otherwise 0: unavailable, unauthorized, throttled, \
         rejection_limit, draining (/readyz has the details)",
    ),
    (
        "nowbridge_watermark_offset",
        Kind::Gauge,
        "route, partition",
        "Offset below which every record of the partition is resolved",
    ),
    (
        "nowbridge_repartitioned_records_total",
        Kind::Counter,
        "route, stage",
        "Records copied to the topic of a stage before the sink: repartition, grouping",
    ),
    ("nowbridge_repartitioned_events_total", Kind::Counter, "route, stage", "Alert events in the copied records"),
    (
        "nowbridge_repartition_transactions_total",
        Kind::Counter,
        "route, stage, outcome",
        "Transactions of a stage before the sink: committed, failed (retried)",
    ),
    (
        "nowbridge_repartition_lag_records",
        Kind::Gauge,
        "route, stage",
        "Records that a stage before the sink has not copied yet, in this member's partitions",
    ),
    ("nowbridge_changes_published_total", Kind::Counter, "route", "Changes published by a source route"),
    (
        "nowbridge_own_changes_skipped_total",
        Kind::Counter,
        "route",
        "Changes that a source route skipped because the bridge itself had made them",
    ),
    (
        "nowbridge_source_lag_seconds",
        Kind::Gauge,
        "route",
        "Time by which the cursor of a source route is behind the instance's clock",
    ),
];

/// The values of the `reason` label of `nowbridge_route_blocked`.
const BLOCK_REASONS: [&str; 5] = ["unavailable", "unauthorized", "throttled", "rejection_limit", "draining"];

fn reason_label(reason: &BlockReason) -> &'static str {
    match reason {
        BlockReason::Unavailable(_) => "unavailable",
        BlockReason::Unauthorized(_) => "unauthorized",
        BlockReason::Throttled { .. } => "throttled",
        BlockReason::RejectionLimit(_) => "rejection_limit",
        BlockReason::Draining => "draining",
    }
}

/// Registers the help texts with the exporter.
pub fn describe_all() {
    for &(name, kind, _, help) in ALL {
        match kind {
            Kind::Counter => describe_counter!(name, help),
            Kind::Gauge => describe_gauge!(name, help),
            Kind::Histogram => describe_histogram!(name, help),
        }
    }
}

/// Counts records read from the route's topic.
pub fn received(route: &str, records: u64) {
    counter!("nowbridge_records_received_total", "route" => route.to_owned()).increment(records);
}

/// Counts an applied write. `latency` is in milliseconds.
pub fn applied(route: &str, outcome: &'static str, events: usize, latency: u64) {
    counter!("nowbridge_events_applied_total", "route" => route.to_owned(), "outcome" => outcome)
        .increment(events as u64);
    counter!("nowbridge_writes_total", "route" => route.to_owned(), "outcome" => outcome).increment(1);
    #[expect(clippy::cast_precision_loss, reason = "a latency in milliseconds is far below 2^52")]
    histogram!("nowbridge_write_latency_seconds", "route" => route.to_owned()).record(latency as f64 / 1_000.0);
}

/// Counts a dead letter.
pub fn dead_letter(route: &str, code: &str) {
    counter!("nowbridge_dead_letters_total", "route" => route.to_owned(), "code" => code.to_owned()).increment(1);
}

/// Counts a lost record of the results topic.
pub fn result_lost(route: &str) {
    counter!("nowbridge_results_lost_total", "route" => route.to_owned()).increment(1);
}

/// Counts an observation of the engine.
pub fn observed(route: &str, observation: &Observation) {
    let route = route.to_owned();
    match observation {
        Observation::WriteAmbiguous(..) => {
            counter!("nowbridge_ambiguous_writes_total", "route" => route, "settled" => "no")
        }
        Observation::AmbiguitySettled { applied: true, .. } => {
            counter!("nowbridge_ambiguous_writes_total", "route" => route, "settled" => "applied")
        }
        Observation::AmbiguitySettled { applied: false, .. } => {
            counter!("nowbridge_ambiguous_writes_total", "route" => route, "settled" => "not_applied")
        }
        Observation::WriteIneffective(..) => counter!("nowbridge_ineffective_writes_total", "route" => route),
        Observation::OutdatedStateChange(..) => counter!("nowbridge_outdated_state_changes_total", "route" => route),
        Observation::FutureTime(..) => counter!("nowbridge_future_events_total", "route" => route),
        Observation::UserEditPreserved(..) => counter!("nowbridge_user_edits_preserved_total", "route" => route),
        Observation::Skipped(_, reason) => {
            counter!("nowbridge_events_skipped_total", "route" => route, "reason" => *reason)
        }
        Observation::Unchanged(_) => counter!("nowbridge_unchanged_updates_total", "route" => route),
        Observation::Expired(_) => counter!("nowbridge_ledger_entries_expired_total", "route" => route),
        Observation::Parked(..) => {
            counter!("nowbridge_park_transitions_total", "route" => route, "transition" => "parked")
        }
        Observation::Unparked(_) => {
            counter!("nowbridge_park_transitions_total", "route" => route, "transition" => "released")
        }
        Observation::StillParked(..) => {
            counter!("nowbridge_park_transitions_total", "route" => route, "transition" => "still_parked")
        }
        Observation::DuplicateTickets(..) => counter!("nowbridge_duplicate_tickets_total", "route" => route),
        Observation::TicketMissing(..) => counter!("nowbridge_missing_tickets_total", "route" => route),
        Observation::TokenRenewed(_) => counter!("nowbridge_ledger_tokens_renewed_total", "route" => route),
        Observation::Blocked(blocked_by) => {
            let present = blocked_by.as_ref().map(reason_label);
            for reason in BLOCK_REASONS {
                let value = if present == Some(reason) { 1.0 } else { 0.0 };
                gauge!("nowbridge_route_blocked", "route" => route.clone(), "reason" => reason).set(value);
            }
            return;
        }
    }
    .increment(1);
}

/// Counts a transaction of a stage before the sink, and the records and alert events in it if it was committed.
pub fn repartitioned(route: &str, stage: &'static str, committed: Option<(u64, u64)>) {
    let outcome = if committed.is_some() { "committed" } else { "failed" };
    let route = || route.to_owned();
    counter!("nowbridge_repartition_transactions_total", "route" => route(), "stage" => stage, "outcome" => outcome)
        .increment(1);
    let (records, events) = committed.unwrap_or_default();
    counter!("nowbridge_repartitioned_records_total", "route" => route(), "stage" => stage).increment(records);
    counter!("nowbridge_repartitioned_events_total", "route" => route(), "stage" => stage).increment(events);
}

/// Sets how many records this member has not repartitioned or grouped yet.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^52 are exact")]
pub fn repartition_lag(route: &str, stage: &'static str, records: i64) {
    gauge!("nowbridge_repartition_lag_records", "route" => route.to_owned(), "stage" => stage).set(records as f64);
}

/// Sets the metrics of a source route. Counts are totals since the start; `lag` is in seconds.
#[expect(clippy::cast_precision_loss, reason = "seconds below 2^52 are exact")]
pub fn source(route: &str, published: u64, own_changes_skipped: u64, lag: Option<i64>) {
    counter!("nowbridge_changes_published_total", "route" => route.to_owned()).absolute(published);
    counter!("nowbridge_own_changes_skipped_total", "route" => route.to_owned()).absolute(own_changes_skipped);
    if let Some(lag) = lag {
        gauge!("nowbridge_source_lag_seconds", "route" => route.to_owned()).set(lag as f64);
    }
}

/// Sets the gauges of a sink route.
#[expect(clippy::cast_precision_loss, reason = "counts and offsets below 2^52 are exact")]
pub fn route(route: &str, s: &Snapshot, quota: &QuotaStatus, drain: &DrainEstimate) {
    let set = |name: &'static str, value: f64| gauge!(name, "route" => route.to_owned()).set(value);
    set("nowbridge_pending_events", s.unresolved_events as f64);
    set("nowbridge_pending_bytes", s.unresolved_bytes as f64);
    set("nowbridge_active_keys", s.lanes as f64);
    set("nowbridge_ambiguous_keys", s.ambiguous_lanes as f64);
    set("nowbridge_parked_keys", s.parked_keys as f64);
    set("nowbridge_ledger_entries", s.entries as f64);
    set("nowbridge_assigned_partitions", s.partitions as f64);
    set("nowbridge_leased_partitions", s.leased_partitions as f64);
    set("nowbridge_requests_in_flight", quota.in_flight as f64);
    set("nowbridge_concurrency_limit", quota.concurrency_limit as f64);
    set("nowbridge_quota_share_ratio", quota.share);
    if let Some(rate) = quota.requests_per_second {
        set("nowbridge_quota_requests_per_second", rate);
    }
    let requests = &quota.requests;
    for (class, count) in [("normal", requests.normal), ("urgent", requests.urgent), ("source", requests.source)] {
        counter!("nowbridge_requests_total", "route" => route.to_owned(), "class" => class).absolute(count);
    }
    set("nowbridge_waiting_keys", drain.keys as f64);
    set("nowbridge_waiting_critical_keys", drain.critical_keys as f64);
    set("nowbridge_drain_estimate_seconds", drain.seconds.unwrap_or(f64::NAN));
    for (partition, watermark) in &s.watermarks {
        gauge!("nowbridge_watermark_offset", "route" => route.to_owned(), "partition" => partition.to_string())
            .set(*watermark as f64);
    }
}

/// Returns the list of metrics as a Markdown table, for the documentation.
pub fn table() -> String {
    let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for (name, kind, labels, help) in ALL {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {} |\n", help.replace('|', "\\|")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_and_the_table_has_each_once() {
        let table = table();
        assert_eq!(table.lines().count(), ALL.len() + 2);
        for (name, kind, _, help) in ALL {
            assert!(name.starts_with("nowbridge_") && !help.is_empty(), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(table.matches(&format!("| `{name}` |")).count(), 1, "{name}");
        }
    }
}
