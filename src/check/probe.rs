//! The write probe: one test ticket goes through what every ticket goes through: made, noted on, found again, its
//! note read back, resolved. Only on demand, because it leaves a resolved ticket behind and may notify people.

use super::choices::sample;
use super::rounds::{Rounds, Verdict};
use super::table::Visit;
use crate::config::Sink;
use crate::model::answer::Journal;
use crate::model::{Action, Answer, Column, Intent};
use crate::servicenow::{Note, Request};

const PLEASE_REPORT: &str = "please report it";

pub async fn check(rounds: &mut Rounds<'_>, visit: &Visit<'_>, sink: &Sink) {
    let key = format!("nowbridge-check-{:032x}", fastrand::u128(..));
    let what = "a test ticket can be made";
    let (open, resolve) = match (sample(sink, Action::Open, &key), sample(sink, Action::Resolve, &key)) {
        (Ok(Some(open)), Ok(resolve)) => (open, resolve),
        (Ok(None), _) => {
            let why = "the route's rules leave a made-up alert out";
            rounds.note(visit.id("probe.create"), what, Verdict::skipped(why));
            return;
        }
        (Err(error), _) | (_, Err(error)) => {
            let verdict = Verdict::skipped(format!("a made-up alert can't be mapped: {error}"));
            rounds.note(visit.id("probe.create"), what, verdict);
            return;
        }
    };
    let Some((sys_id, number)) = create(rounds, visit, sink, &key, &open).await else { return };
    find(rounds, visit, &key, &sys_id).await;
    note(rounds, visit, &sys_id, &key).await;
    close(rounds, visit, sink, &sys_id, &number, resolve).await;
}

fn state(sink: &Sink, value: &str) -> (Column, String) {
    (sink.settings.states.column.as_str().into(), value.to_owned())
}

fn marker(key: &str) -> String {
    format!("[{key}]")
}

/// Its sys_id and number, where it was made.
async fn create(
    rounds: &mut Rounds<'_>,
    visit: &Visit<'_>,
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
    let (made, verdict) = match visit.client.perform(0, create).await.answer {
        Answer::Applied { row, warnings } if warnings.is_empty() => {
            let verdict = Verdict::pass(format!("{} was made as asked", row.number));
            (Some((row.sys_id, row.number)), verdict)
        }
        Answer::Applied { row, warnings } => {
            let detail = format!("{} was made, but not all as asked: {}", row.number, warnings.join("; "));
            let remedy = "look whether business rules, choice lists or column ACLs mean it so";
            (Some((row.sys_id, row.number)), Verdict::warn(detail, remedy))
        }
        Answer::Failed(failure) => (None, Verdict::failed(&failure)),
        Answer::NotSent { reason } => (None, Verdict::skipped(reason)),
        Answer::Rows { .. } => (None, Verdict::fail("a write was answered as a look-up", PLEASE_REPORT)),
    };
    rounds.note(visit.id("probe.create"), "a test ticket can be made", verdict);
    made
}

async fn find(rounds: &mut Rounds<'_>, visit: &Visit<'_>, key: &str, sys_id: &str) {
    let find = Request::Find { correlation: key.to_owned(), columns: Vec::new() };
    let verdict = match visit.client.perform(0, find).await.answer {
        Answer::Rows { rows, .. } if rows.len() == 1 && rows[0].sys_id == sys_id => Verdict::pass("and only it"),
        Answer::Rows { rows, .. } => Verdict::fail(
            format!("{} tickets were found by the test ticket's correlation, instead of it alone", rows.len()),
            "look whether rules make, merge, hide or clear tickets; without look-ups a crash would double them",
        ),
        Answer::Failed(failure) => Verdict::failed(&failure),
        _ => Verdict::skipped("the look-up was not sent"),
    };
    rounds.note(visit.id("probe.find"), "the test ticket is found by its correlation", verdict);
}

async fn note(rounds: &mut Rounds<'_>, visit: &Visit<'_>, sys_id: &str, key: &str) {
    let read = Request::Read { sys_id: sys_id.to_owned(), columns: Vec::new(), markers: vec![marker(key)] };
    let verdict = match visit.client.perform(0, read).await.answer {
        Answer::Rows { journal: Some(Journal::Read(found)), .. } if !found.is_empty() => {
            Verdict::pass("found by its marker")
        }
        Answer::Rows { journal: Some(Journal::Read(_)), .. } => Verdict::fail(
            "the journal can be read and the note is not in it",
            "look whether a rule removes or moves work notes",
        ),
        Answer::Rows { .. } => Verdict::fail(
            "neither sys_journal_field nor the ticket shows its notes: a note in doubt would wait forever",
            "let the bridge's user read sys_journal_field or the ticket's work_notes",
        ),
        Answer::Failed(failure) => Verdict::failed(&failure),
        _ => Verdict::skipped("the read was not sent"),
    };
    rounds.note(visit.id("probe.note"), "the test ticket's work note is read back", verdict);
}

async fn close(
    rounds: &mut Rounds<'_>,
    visit: &Visit<'_>,
    sink: &Sink,
    sys_id: &str,
    number: &str,
    resolve: Option<Intent>,
) {
    let mut fields = resolve.map_or_else(Vec::new, |intent| intent.closing);
    fields.push(state(sink, &sink.settings.states.resolved));
    let by_hand = format!("; the test ticket {number} stays open, please close it");
    let update = Request::Update { sys_id: sys_id.to_owned(), fields, notes: Vec::new() };
    let verdict = match visit.client.perform(0, update).await.answer {
        Answer::Applied { warnings, .. } if warnings.is_empty() => Verdict::pass(format!("{number} is resolved")),
        Answer::Applied { warnings, .. } => Verdict::warn(
            format!("{number} is resolved, but not all as asked: {}", warnings.join("; ")),
            "look whether business rules, choice lists or column ACLs mean it so",
        ),
        Answer::Failed(failure) => {
            let mut verdict = Verdict::failed(&failure);
            verdict.detail.push_str(&by_hand);
            verdict
        }
        _ => Verdict::fail(format!("the resolve was not sent{by_hand}"), "check again"),
    };
    rounds.note(visit.id("probe.resolve"), "the test ticket can be resolved", verdict);
}
