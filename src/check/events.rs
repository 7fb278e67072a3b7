//! Checks of a route that writes events: whether the bridge's user may send events and read them, which verification
//! needs.
//!
//! An event cannot be deleted, so none is sent without `--write-probe`. That one has severity 0, which creates no
//! alert.

use std::collections::BTreeSet;

use serde_json::Map;

use super::run::{CheckRun, Verdict};
use super::table::RouteTable;
use crate::config::Sink;
use crate::model::answer::Journal;
use crate::model::{Answer, Failure, FailureClass};
use crate::servicenow::{Note, Request};

/// Columns without which an event cannot be found.
const ESSENTIAL: [&str; 5] = ["sys_id", "sys_created_on", "message_key", "severity", "additional_info"];

const GRANT_SEND: &str =
    "give the bridge's user the role evt_mgmt_integration (and check that Event Management is active)";
const GRANT_READ: &str =
    "let the bridge's user read em_event with these columns: the bridge verifies ambiguous events there";

/// Checks events; returns false if no further requests may be sent to the instance.
pub async fn check(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, sink: &Sink, probe: bool) -> bool {
    let is_rejected = |failure: &Failure| failure.class == FailureClass::Unauthorized;
    let (verdict, can_continue) = match route_table.client.probe_event_api().await {
        Ok(()) => {
            let detail = "the event API responds; only an event shows whether it is accepted (--write-probe)";
            (Verdict::pass(detail), true)
        }
        Err(failure) if matches!(failure.code.as_str(), "api_acl" | "http_403") => {
            (Verdict::fail(format!("{}: {}", failure.code, failure.message), GRANT_SEND), true)
        }
        Err(failure) => (Verdict::failed(&failure), !is_rejected(&failure)),
    };
    run.record(route_table.id("send"), "events can be sent", verdict);
    if !can_continue {
        return false;
    }
    run.record(route_table.id("read"), "events can be read back", read(route_table, sink).await);
    let verdict = find_unknown(route_table).await;
    run.record(route_table.id("correlation"), "look-ups by message_key are reliable", verdict);
    if probe {
        run.start(&format!("sink {}: a test event", sink.name));
        let verdict = send_test_event(route_table).await;
        run.record(route_table.id("probe.event"), "a test event is accepted and found", verdict);
    }
    true
}

/// Reads the newest events with the essential columns and those that the route writes.
async fn read(route_table: &RouteTable<'_>, sink: &Sink) -> Verdict {
    let mapped = sink.mapping.columns();
    let mut columns: BTreeSet<&str> = mapped.iter().map(|c| &**c).filter(|column| !column.contains('.')).collect();
    columns.extend(ESSENTIAL);
    let parameters = [
        ("sysparm_query", "ORDERBYDESCsys_created_on".to_owned()),
        ("sysparm_fields", columns.iter().copied().collect::<Vec<_>>().join(",")),
        ("sysparm_limit", "10".to_owned()),
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let page = match route_table.client.get(0, &route_table.path(), &parameters).await {
        Ok(page) => page,
        Err(failure) => return Verdict::failed(&failure),
    };
    if page.rows.is_empty() {
        let remedy = "check again when there is an event, or use --write-probe";
        return Verdict::warn("em_event is empty, or all its records are hidden", remedy);
    }
    let shown: BTreeSet<&str> = page.rows.iter().flat_map(Map::keys).map(String::as_str).collect();
    let missing: Vec<&str> = columns.iter().copied().filter(|column| !shown.contains(column)).collect();
    let detail = format!("not readable: {}", missing.join(", "));
    match missing.as_slice() {
        [] => Verdict::pass(format!("all {} columns are readable", columns.len())),
        missing if missing.iter().any(|column| ESSENTIAL.contains(column)) => Verdict::fail(detail, GRANT_READ),
        _ => Verdict::warn(detail, "the columns do not exist, and their values are dropped; correct `fields`"),
    }
}

/// A search for a random key must find nothing.
async fn find_unknown(route_table: &RouteTable<'_>) -> Verdict {
    let find = Request::FindEvents { correlation: random_key(), ticket: None, markers: Vec::new() };
    match route_table.client.perform(0, find).await.answer {
        Answer::Rows { rows, .. } if rows.is_empty() => Verdict::pass("a random message key finds nothing"),
        Answer::Failed(failure) => Verdict::failed(&failure),
        Answer::NotSent { reason } => Verdict::skipped(reason),
        Answer::Rows { .. } | Answer::Applied { .. } | Answer::WithoutCorrelation { .. } => {
            Verdict::fail("a search for a random message key found an event", "report it as a bug")
        }
    }
}

async fn send_test_event(route_table: &RouteTable<'_>) -> Verdict {
    let correlation = random_key();
    let marker = format!("[{correlation}]");
    let fields = [("severity", "0"), ("description", "nowbridge check: a test event, please ignore it")];
    let event = Request::SendEvent {
        correlation: correlation.clone(),
        ticket: None,
        fields: fields.map(|(column, value)| (column.into(), value.to_owned())).to_vec(),
        notes: vec![Note { text: String::new(), marker: marker.clone() }],
    };
    let sys_id = match route_table.client.perform(0, event).await.answer {
        Answer::Applied { row, .. } | Answer::WithoutCorrelation { row, .. } => row.sys_id,
        Answer::Failed(failure) => return Verdict::failed(&failure),
        Answer::NotSent { reason } => return Verdict::skipped(reason),
        Answer::Rows { .. } => return Verdict::fail("an event was answered as a look-up", "report it as a bug"),
    };
    let find = Request::FindEvents { correlation, ticket: Some(sys_id), markers: vec![marker.clone()] };
    match route_table.client.perform(0, find).await.answer {
        Answer::Rows { journal: Some(Journal::Read(found)), .. } if found.contains(&marker) => {
            Verdict::pass("sent, and found by its marker")
        }
        Answer::Failed(failure) => Verdict::failed(&failure),
        _ => Verdict::fail("accepted, but not found: after a lost response the event would be sent twice", GRANT_READ),
    }
}

fn random_key() -> String {
    format!("nowbridge-check-{:032x}", fastrand::u128(..))
}
