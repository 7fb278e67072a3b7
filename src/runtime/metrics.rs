//! Every metric of the bridge: name, kind, labels and meaning in one closed list. `/metrics` shows them, and the list
//! in the README is checked against this one.

#![expect(clippy::disallowed_macros, reason = "this is the list that they are kept in")]

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::engine::dispatcher::Snapshot;
use crate::engine::event::Observation;
use crate::model::{DrainEstimate, QuotaStatus};

/// What kind of metric it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Name, kind, labels, meaning.
pub const ALL: &[(&str, Kind, &str, &str)] = &[
    ("nowbridge_records_received_total", Kind::Counter, "route", "Records read from the route's topic"),
    (
        "nowbridge_events_applied_total",
        Kind::Counter,
        "route, outcome",
        "Alert events resolved by a write, by its outcome",
    ),
    ("nowbridge_writes_total", Kind::Counter, "route, outcome", "Writes that the instance applied, by outcome"),
    (
        "nowbridge_events_skipped_total",
        Kind::Counter,
        "route, why",
        "Alert events left out: repeated, older, no ticket",
    ),
    (
        "nowbridge_unchanged_total",
        Kind::Counter,
        "route",
        "Folds that needed no request because the ticket stood so already",
    ),
    ("nowbridge_dead_letters_total", Kind::Counter, "route, code", "Dead letters written"),
    (
        "nowbridge_doubts_total",
        Kind::Counter,
        "route, settled",
        "Writes whose answer was lost: opened, found there, found missing",
    ),
    (
        "nowbridge_person_kept_total",
        Kind::Counter,
        "route",
        "Column values left alone because a person had changed them",
    ),
    ("nowbridge_parked_total", Kind::Counter, "route, what", "Keys parked, released, and left parked by a redrive"),
    ("nowbridge_entries_expired_total", Kind::Counter, "route", "Ledger entries forgotten after the reopen window"),
    ("nowbridge_tickets_doubled_total", Kind::Counter, "route", "Look-ups that found more than one ticket for a key"),
    ("nowbridge_tickets_gone_total", Kind::Counter, "route", "Tickets found deleted or hidden"),
    (
        "nowbridge_tokens_renewed_total",
        Kind::Counter,
        "route",
        "New tokens taken after a ledger write of unknown outcome",
    ),
    ("nowbridge_results_lost_total", Kind::Counter, "route", "Records of the results topic that Kafka did not take"),
    (
        "nowbridge_latency_milliseconds",
        Kind::Histogram,
        "route",
        "From the receipt of a fold's first record to its applied write",
    ),
    ("nowbridge_unresolved_events", Kind::Gauge, "route", "Alert events received and not resolved"),
    ("nowbridge_unresolved_bytes", Kind::Gauge, "route", "Bytes of their records held in memory"),
    ("nowbridge_lanes", Kind::Gauge, "route", "Keys at work"),
    ("nowbridge_lanes_in_doubt", Kind::Gauge, "route", "Keys whose last write is in doubt"),
    ("nowbridge_keys_parked", Kind::Gauge, "route", "Keys parked behind a refused record"),
    ("nowbridge_ledger_entries", Kind::Gauge, "route", "Keys remembered in the ledger partitions held"),
    ("nowbridge_partitions", Kind::Gauge, "route", "Partitions held"),
    ("nowbridge_partitions_leased", Kind::Gauge, "route", "Partitions whose lease stands"),
    (
        "nowbridge_requests_in_flight",
        Kind::Gauge,
        "route",
        "Requests without an answer yet, all routes of the instance",
    ),
    (
        "nowbridge_requests_at_once",
        Kind::Gauge,
        "route",
        "Requests that may be out at once now, all routes of the instance: follows how the instance bears it",
    ),
    (
        "nowbridge_requests_total",
        Kind::Counter,
        "route, spender",
        "Requests made to the route's instance by all routes of this process, by who spent: sink, urgent, source",
    ),
    (
        "nowbridge_quota_requests_per_second",
        Kind::Gauge,
        "route",
        "Requests a second that sinks may make, by the configured rate or a rule of the instance; absent without one",
    ),
    ("nowbridge_quota_share", Kind::Gauge, "route", "This member's share of the sinks' quota, 0 to 1"),
    ("nowbridge_backlog_keys", Kind::Gauge, "route", "Keys that wait for a request"),
    ("nowbridge_backlog_critical_keys", Kind::Gauge, "route", "Of them, those that are before all others"),
    (
        "nowbridge_backlog_seconds",
        Kind::Gauge,
        "route",
        "How long that takes as requests go at present, an estimate; NaN while nobody knows",
    ),
    ("nowbridge_standing", Kind::Gauge, "route", "1 while the route stands still (see /readyz for why)"),
    ("nowbridge_watermark", Kind::Gauge, "route, partition", "Offset below which everything is resolved"),
    (
        "nowbridge_rekeyed_records_total",
        Kind::Counter,
        "route, stage",
        "Records of the route's topic that were re-keyed (stage rekey), or put into their groups (stage digest)",
    ),
    ("nowbridge_rekeyed_alerts_total", Kind::Counter, "route, stage", "Alert events in them"),
    (
        "nowbridge_rekey_transactions_total",
        Kind::Counter,
        "route, stage, outcome",
        "Transactions in which they were: committed, or failed and done again",
    ),
    (
        "nowbridge_rekey_lag_records",
        Kind::Gauge,
        "route, stage",
        "Records that this member has yet to re-key, or to put into their groups",
    ),
    ("nowbridge_changes_published_total", Kind::Counter, "route", "Changes published by a source route"),
    ("nowbridge_echoes_total", Kind::Counter, "route", "Own writes seen by a source route and left out"),
    (
        "nowbridge_source_lag_seconds",
        Kind::Gauge,
        "route",
        "How far a source route's cursor is behind the instance's clock",
    ),
];

/// Tells the exporter what each metric means.
pub fn describe_all() {
    for &(name, kind, _, help) in ALL {
        match kind {
            Kind::Counter => describe_counter!(name, help),
            Kind::Gauge => describe_gauge!(name, help),
            Kind::Histogram => describe_histogram!(name, help),
        }
    }
}

/// Records were read.
pub fn received(route: &str, records: u64) {
    counter!("nowbridge_records_received_total", "route" => route.to_owned()).increment(records);
}

/// A write was applied.
pub fn applied(route: &str, outcome: &'static str, events: usize, latency: u64) {
    counter!("nowbridge_events_applied_total", "route" => route.to_owned(), "outcome" => outcome)
        .increment(events as u64);
    counter!("nowbridge_writes_total", "route" => route.to_owned(), "outcome" => outcome).increment(1);
    #[expect(clippy::cast_precision_loss, reason = "a latency in milliseconds is far below 2^52")]
    histogram!("nowbridge_latency_milliseconds", "route" => route.to_owned()).record(latency as f64);
}

/// A dead letter was written.
pub fn dead_letter(route: &str, code: &str) {
    counter!("nowbridge_dead_letters_total", "route" => route.to_owned(), "code" => code.to_owned()).increment(1);
}

/// A record of the results topic was lost.
pub fn result_lost(route: &str) {
    counter!("nowbridge_results_lost_total", "route" => route.to_owned()).increment(1);
}

/// The engine observed something.
pub fn observed(route: &str, observation: &Observation) {
    let route = route.to_owned();
    match observation {
        Observation::WriteAmbiguous(..) => counter!("nowbridge_doubts_total", "route" => route, "settled" => "opened"),
        Observation::AmbiguitySettled(_, true) => {
            counter!("nowbridge_doubts_total", "route" => route, "settled" => "there")
        }
        Observation::AmbiguitySettled(_, false) => {
            counter!("nowbridge_doubts_total", "route" => route, "settled" => "missing")
        }
        Observation::UserEditPreserved(..) => counter!("nowbridge_person_kept_total", "route" => route),
        Observation::Skipped(_, why) => counter!("nowbridge_events_skipped_total", "route" => route, "why" => *why),
        Observation::Unchanged(_) => counter!("nowbridge_unchanged_total", "route" => route),
        Observation::Expired(_) => counter!("nowbridge_entries_expired_total", "route" => route),
        Observation::Parked(..) => counter!("nowbridge_parked_total", "route" => route, "what" => "parked"),
        Observation::Unparked(_) => counter!("nowbridge_parked_total", "route" => route, "what" => "released"),
        Observation::StillParked(..) => counter!("nowbridge_parked_total", "route" => route, "what" => "stays"),
        Observation::DuplicateTickets(..) => counter!("nowbridge_tickets_doubled_total", "route" => route),
        Observation::Gone(..) => counter!("nowbridge_tickets_gone_total", "route" => route),
        Observation::TokenRenewed(_) => counter!("nowbridge_tokens_renewed_total", "route" => route),
        Observation::Blocked(blocked_by) => {
            gauge!("nowbridge_standing", "route" => route).set(if blocked_by.is_some() { 1.0 } else { 0.0 });
            return;
        }
    }
    .increment(1);
}

/// A transaction of a stage before the sink ended; what it held, if it was committed.
pub fn rekeyed(route: &str, stage: &'static str, committed: Option<(u64, u64)>) {
    let outcome = if committed.is_some() { "committed" } else { "failed" };
    let route = || route.to_owned();
    counter!("nowbridge_rekey_transactions_total", "route" => route(), "stage" => stage, "outcome" => outcome)
        .increment(1);
    let (records, alerts) = committed.unwrap_or_default();
    counter!("nowbridge_rekeyed_records_total", "route" => route(), "stage" => stage).increment(records);
    counter!("nowbridge_rekeyed_alerts_total", "route" => route(), "stage" => stage).increment(alerts);
}

/// How many records are yet to be re-keyed by this member.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^52 are exact")]
pub fn rekey_lag(route: &str, stage: &'static str, records: i64) {
    gauge!("nowbridge_rekey_lag_records", "route" => route.to_owned(), "stage" => stage).set(records as f64);
}

/// The present numbers of a source route; counts are totals since the start.
#[expect(clippy::cast_precision_loss, reason = "seconds below 2^52 are exact")]
pub fn source(route: &str, published: u64, echoes: u64, lag: Option<i64>) {
    counter!("nowbridge_changes_published_total", "route" => route.to_owned()).absolute(published);
    counter!("nowbridge_echoes_total", "route" => route.to_owned()).absolute(echoes);
    if let Some(lag) = lag {
        gauge!("nowbridge_source_lag_seconds", "route" => route.to_owned()).set(lag as f64);
    }
}

/// The present numbers of a route.
#[expect(clippy::cast_precision_loss, reason = "counts and offsets below 2^52 are exact")]
pub fn route(route: &str, s: &Snapshot, plan: &QuotaStatus, backlog: &DrainEstimate) {
    let set = |name: &'static str, value: f64| gauge!(name, "route" => route.to_owned()).set(value);
    set("nowbridge_unresolved_events", s.unresolved as f64);
    set("nowbridge_unresolved_bytes", s.bytes as f64);
    set("nowbridge_lanes", s.lanes as f64);
    set("nowbridge_lanes_in_doubt", s.doubts as f64);
    set("nowbridge_keys_parked", s.parked as f64);
    set("nowbridge_ledger_entries", s.entries as f64);
    set("nowbridge_partitions", s.partitions.0 as f64);
    set("nowbridge_partitions_leased", s.leased as f64);
    set("nowbridge_requests_in_flight", plan.out as f64);
    set("nowbridge_requests_at_once", plan.at_once.0 as f64);
    set("nowbridge_quota_share", plan.share);
    if let Some(rate) = plan.per_second {
        set("nowbridge_quota_requests_per_second", rate);
    }
    for (spender, spent) in ["sink", "urgent", "source"].into_iter().zip(plan.spent) {
        counter!("nowbridge_requests_total", "route" => route.to_owned(), "spender" => spender).absolute(spent);
    }
    set("nowbridge_backlog_keys", backlog.keys as f64);
    set("nowbridge_backlog_critical_keys", backlog.critical as f64);
    set("nowbridge_backlog_seconds", backlog.seconds.unwrap_or(f64::NAN));
    for (partition, watermark) in &s.watermarks {
        gauge!("nowbridge_watermark", "route" => route.to_owned(), "partition" => partition.to_string())
            .set(*watermark as f64);
    }
}

/// The list of metrics as a Markdown table, for the README.
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
    fn names_follow_prometheus_and_each_stands_in_the_table_once() {
        let table = table();
        assert_eq!(table.lines().count(), ALL.len() + 2);
        for (name, kind, _, help) in ALL {
            assert!(name.starts_with("nowbridge_") && !help.is_empty(), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(table.matches(&format!("| `{name}` |")).count(), 1, "{name}");
        }
    }
}
