//! A route that writes events: may the bridge's user send them, and read them again, by which its doubts are settled?
//!
//! An event can't be taken back, so none is sent without `--write-probe`; that one is of severity 0, which makes no alert.

use std::collections::BTreeSet;

use serde_json::Map;

use super::rounds::{Rounds, Verdict};
use super::table::Visit;
use crate::config::Sink;
use crate::model::answer::Journal;
use crate::model::{Answer, Class, Failure};
use crate::servicenow::{Note, Request};

/// Without these an event can't be found again.
const ESSENTIAL: [&str; 5] = ["sys_id", "sys_created_on", "message_key", "severity", "additional_info"];

const SEND: &str = "give the bridge's user the role evt_mgmt_integration (and see that Event Management is active)";
const READ: &str = "let the bridge's user read em_event with these columns: a lost answer is settled by a look there";

/// Looks at events; false where the instance must be asked no more.
pub async fn check(rounds: &mut Rounds<'_>, visit: &Visit<'_>, sink: &Sink, probe: bool) -> bool {
    let refused = |failure: &Failure| failure.class == Class::Unauthorised;
    let (verdict, goes_on) = match visit.client.knock_for_events().await {
        Ok(()) => (Verdict::pass("the interface answers; what it takes shows only in an event (--write-probe)"), true),
        Err(failure) if matches!(failure.code.as_str(), "api_acl" | "http_403") => {
            (Verdict::fail(format!("{}: {}", failure.code, failure.message), SEND), true)
        }
        Err(failure) => (Verdict::failed(&failure), !refused(&failure)),
    };
    rounds.note(visit.id("send"), "events can be sent", verdict);
    if !goes_on {
        return false;
    }
    rounds.note(visit.id("read"), "events can be read again", read(visit, sink).await);
    rounds.note(visit.id("correlation"), "look-ups by message_key can be trusted", look(visit).await);
    if probe {
        rounds.looking(&format!("sink {}: a test event", sink.name));
        rounds.note(visit.id("probe.event"), "a test event is taken and found again", try_one(visit).await);
    }
    true
}

/// The newest events, with what is needed of them and what the route writes.
async fn read(visit: &Visit<'_>, sink: &Sink) -> Verdict {
    let columns = sink.mapping.columns();
    let mut asked: BTreeSet<&str> = columns.iter().map(|c| &**c).filter(|column| !column.contains('.')).collect();
    asked.extend(ESSENTIAL);
    let parameters = [
        ("sysparm_query", "ORDERBYDESCsys_created_on".to_owned()),
        ("sysparm_fields", asked.iter().copied().collect::<Vec<_>>().join(",")),
        ("sysparm_limit", "10".to_owned()),
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let page = match visit.client.get(0, &visit.path(), &parameters).await {
        Ok(page) => page,
        Err(failure) => return Verdict::failed(&failure),
    };
    if page.rows.is_empty() {
        let remedy = "check again when there is an event, or use --write-probe";
        return Verdict::warn("em_event is empty, or hides all its rows: it can't be seen which", remedy);
    }
    let shown: BTreeSet<&str> = page.rows.iter().flat_map(Map::keys).map(String::as_str).collect();
    let missing: Vec<&str> = asked.iter().copied().filter(|column| !shown.contains(column)).collect();
    let detail = format!("not shown: {}", missing.join(", "));
    match missing.as_slice() {
        [] => Verdict::pass(format!("all {} columns are shown", asked.len())),
        missing if missing.iter().any(|column| ESSENTIAL.contains(column)) => Verdict::fail(detail, READ),
        _ => Verdict::warn(detail, "they don't exist, and what is sent there is dropped; look at `fields`"),
    }
}

/// A look for a key that was made up must find nothing.
async fn look(visit: &Visit<'_>) -> Verdict {
    let look = Request::Events { correlation: made_up(), ticket: None, markers: Vec::new() };
    match visit.client.perform(0, look).await.answer {
        Answer::Rows { rows, .. } if rows.is_empty() => Verdict::pass("a made-up one finds nothing"),
        Answer::Failed(failure) => Verdict::failed(&failure),
        Answer::NotSent { reason } => Verdict::skipped(reason),
        Answer::Rows { .. } | Answer::Applied { .. } => {
            Verdict::fail("an event was found for a key that was made up a moment ago", "please report it")
        }
    }
}

async fn try_one(visit: &Visit<'_>) -> Verdict {
    let correlation = made_up();
    let marker = format!("[{correlation}]");
    let fields = [("severity", "0"), ("description", "nowbridge check: a test event, please ignore it")];
    let event = Request::Event {
        correlation: correlation.clone(),
        ticket: None,
        fields: fields.map(|(column, value)| (column.into(), value.to_owned())).to_vec(),
        notes: vec![Note { text: String::new(), marker: marker.clone() }],
    };
    let sys_id = match visit.client.perform(0, event).await.answer {
        Answer::Applied { row, .. } => row.sys_id,
        Answer::Failed(failure) => return Verdict::failed(&failure),
        Answer::NotSent { reason } => return Verdict::skipped(reason),
        Answer::Rows { .. } => return Verdict::fail("an event was answered as a look-up", "please report it"),
    };
    let look = Request::Events { correlation, ticket: Some(sys_id), markers: vec![marker.clone()] };
    match visit.client.perform(0, look).await.answer {
        Answer::Rows { journal: Some(Journal::Read(found)), .. } if found.contains(&marker) => {
            Verdict::pass("it was sent, and found by its marker")
        }
        Answer::Failed(failure) => Verdict::failed(&failure),
        _ => Verdict::fail("it was taken, and is not found: a lost answer would send its event twice", READ),
    }
}

fn made_up() -> String {
    format!("nowbridge-check-{:032x}", fastrand::u128(..))
}
