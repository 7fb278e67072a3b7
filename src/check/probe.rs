//! The write probe: a test ticket goes through all steps of a ticket: it is created with a note, found, its note read
//! back, and resolved. Only on request, because it leaves a resolved ticket and may notify users.

use super::choices::sample_intent;
use super::run::{CheckRun, Verdict};
use super::table::RouteTable;
use crate::config::Sink;
use crate::model::answer::Journal;
use crate::model::{Action, Answer, Column, Intent};
use crate::servicenow::{Note, Request};

const REPORT_BUG: &str = "report it as a bug";

pub async fn check(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, sink: &Sink) {
    let key = format!("nowbridge-check-{:032x}", fastrand::u128(..));
    let title = "a test ticket can be created";
    let (open, resolve) = match (sample_intent(sink, Action::Open, &key), sample_intent(sink, Action::Resolve, &key)) {
        (Ok(Some(open)), Ok(resolve)) => (open, resolve),
        (Ok(None), _) => {
            let reason = "the route's rules filter out a sample alert";
            run.record(route_table.id("probe.create"), title, Verdict::skipped(reason));
            return;
        }
        (Err(error), _) | (_, Err(error)) => {
            let verdict = Verdict::skipped(format!("a sample alert can't be mapped: {error}"));
            run.record(route_table.id("probe.create"), title, verdict);
            return;
        }
    };
    let Some((sys_id, number)) = create(run, route_table, sink, &key, &open).await else { return };
    find(run, route_table, &key, &sys_id).await;
    note(run, route_table, &sys_id, &key).await;
    close(run, route_table, sink, &sys_id, &number, resolve).await;
}

fn state(sink: &Sink, value: &str) -> (Column, String) {
    (sink.settings.states.column.as_str().into(), value.to_owned())
}

fn marker(key: &str) -> String {
    format!("[{key}]")
}

/// Creates the test ticket; returns its sys_id and number.
async fn create(
    run: &mut CheckRun<'_>,
    route_table: &RouteTable<'_>,
    sink: &Sink,
    key: &str,
    open: &Intent,
) -> Option<(String, String)> {
    let mut fields = open.fields.clone();
    fields.push(state(sink, &sink.settings.states.new));
    let text = "A test by `nowbridge check --write-probe`.".to_owned();
    let create = Request::Create {
        correlation: key.to_owned(),
        correlation_display: sink.correlation_display.clone(),
        fields,
        notes: vec![Note { text, marker: marker(key) }],
    };
    let (created, verdict) = match route_table.client.perform(0, create).await.answer {
        Answer::Applied { row, warnings } if warnings.is_empty() => {
            let verdict = Verdict::pass(format!("{} was created as sent", row.number));
            (Some((row.sys_id, row.number)), verdict)
        }
        Answer::Applied { row, warnings } => {
            let detail = format!("{} was created, but not as sent: {}", row.number, warnings.join("; "));
            let remedy = "check whether business rules, choice lists or column ACLs change the values on purpose";
            (Some((row.sys_id, row.number)), Verdict::warn(detail, remedy))
        }
        Answer::WithoutCorrelation { row, reason } => {
            let remedy = "give the bridge's user write access to the column, and let no rule change it: without it, a                           ticket whose response is lost can't be found";
            let detail = format!("{} was created without its correlation: {reason}", row.number);
            (Some((row.sys_id, row.number)), Verdict::fail(detail, remedy))
        }
        Answer::Failed(failure) => (None, Verdict::failed(&failure)),
        Answer::NotSent { reason } => (None, Verdict::skipped(reason)),
        Answer::Rows { .. } => (None, Verdict::fail("a write was answered as a look-up", REPORT_BUG)),
    };
    run.record(route_table.id("probe.create"), "a test ticket can be created", verdict);
    created
}

async fn find(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, key: &str, sys_id: &str) {
    let find = Request::Find { correlation: key.to_owned(), columns: Vec::new() };
    let verdict = match route_table.client.perform(0, find).await.answer {
        Answer::Rows { rows, .. } if rows.len() == 1 && rows[0].sys_id == sys_id => {
            Verdict::pass("found, and no other ticket")
        }
        Answer::Rows { rows, .. } => Verdict::fail(
            format!("{} tickets were found by the test ticket's correlation instead of only that ticket", rows.len()),
            "check whether rules create, merge, hide or clear tickets; without look-ups, a crash duplicates tickets",
        ),
        Answer::Failed(failure) => Verdict::failed(&failure),
        _ => Verdict::skipped("the look-up was not sent"),
    };
    run.record(route_table.id("probe.find"), "the test ticket is found by its correlation", verdict);
}

async fn note(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, sys_id: &str, key: &str) {
    let read = Request::Read { sys_id: sys_id.to_owned(), columns: Vec::new(), markers: vec![marker(key)] };
    let verdict = match route_table.client.perform(0, read).await.answer {
        Answer::Rows { journal: Some(Journal::Read(found)), .. } if !found.is_empty() => {
            Verdict::pass("found by its marker")
        }
        Answer::Rows { journal: Some(Journal::Read(_)), .. } => Verdict::fail(
            "the journal is readable but does not contain the note",
            "check whether a rule removes or moves work notes",
        ),
        Answer::Rows { .. } => Verdict::fail(
            "neither sys_journal_field nor the ticket shows its notes: an ambiguous note could never be verified",
            "let the bridge's user read sys_journal_field or the ticket's work_notes",
        ),
        Answer::Failed(failure) => Verdict::failed(&failure),
        _ => Verdict::skipped("the read was not sent"),
    };
    run.record(route_table.id("probe.note"), "the test ticket's work note is read back", verdict);
}

async fn close(
    run: &mut CheckRun<'_>,
    route_table: &RouteTable<'_>,
    sink: &Sink,
    sys_id: &str,
    number: &str,
    resolve: Option<Intent>,
) {
    let mut fields = resolve.map_or_else(Vec::new, |intent| intent.closing);
    fields.push(state(sink, &sink.settings.states.resolved));
    let close_manually = format!("; the test ticket {number} is still open: close it manually");
    let update = Request::Update { sys_id: sys_id.to_owned(), fields, notes: Vec::new() };
    let verdict = match route_table.client.perform(0, update).await.answer {
        Answer::Applied { warnings, .. } if warnings.is_empty() => Verdict::pass(format!("{number} is resolved")),
        Answer::Applied { warnings, .. } => Verdict::warn(
            format!("{number} is resolved, but not as sent: {}", warnings.join("; ")),
            "check whether business rules, choice lists or column ACLs change the values on purpose",
        ),
        Answer::Failed(failure) => {
            let mut verdict = Verdict::failed(&failure);
            verdict.detail.push_str(&close_manually);
            verdict
        }
        _ => Verdict::fail(format!("the resolve was not sent{close_manually}"), "check again"),
    };
    run.record(route_table.id("probe.resolve"), "the test ticket can be resolved", verdict);
}
