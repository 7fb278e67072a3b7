//! Work notes: can they be read back? A sink must find its own notes to not double them; a source publishes them.
//!
//! The trap is that a user without rights on `sys_journal_field` gets an empty list and no error. So a ticket whose
//! notes show in its own display values is looked up there: if that shows nothing, the table is closed to us.

use serde_json::Value;

use super::rounds::{Rounds, Verdict};
use super::table::{Visit, text};
use crate::model::{Class, Failure};
use crate::servicenow::Query;

/// Tickets whose journals are looked at.
const TICKETS: &str = "20";

/// Who wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Has the ticket's own journal to fall back on.
    Sink,
    /// Has not.
    Source,
}

const OPEN_IT: &str = "let the bridge's user read sys_journal_field (an ACL for reading that table, for its role)";

/// What the tickets themselves show.
struct Tickets {
    ids: Vec<String>,
    /// The journal column is shown at all.
    shown: bool,
    /// A ticket that has a note.
    noted: Option<String>,
}

pub async fn check(rounds: &mut Rounds<'_>, visit: &Visit<'_>, reader: Reader) {
    let verdict = match look(visit, reader).await {
        Ok(verdict) => verdict,
        Err(failure) => Verdict::failed(&failure),
    };
    rounds.note(visit.id("journal"), "work notes can be read back", verdict);
}

async fn look(visit: &Visit<'_>, reader: Reader) -> Result<Verdict, Failure> {
    let column = visit.client.connection().journal_column.as_str();
    let tickets = tickets(visit, column).await?;
    if tickets.ids.is_empty() {
        return Ok(Verdict::skipped("there is no row to look at"));
    }
    let asked: Vec<String> = tickets.noted.clone().map_or(tickets.ids.clone(), |id| vec![id]);
    let (rows, total) = entries(visit, column, &asked).await?;
    if rows > 0 {
        return Ok(Verdict::pass("sys_journal_field shows them"));
    }
    let hidden = tickets.noted.is_some() || total.is_some_and(|total| total > 0);
    Ok(match (hidden, tickets.shown, reader) {
        (true, true, Reader::Sink) => Verdict::warn(
            "sys_journal_field shows nothing to this user; the ticket's own journal does, and is used instead",
            OPEN_IT,
        ),
        (true, _, Reader::Source) => Verdict::fail(
            "sys_journal_field shows nothing to this user: notes and comments can't be published",
            OPEN_IT,
        ),
        (_, false, Reader::Sink) => Verdict::fail(
            format!(
                "neither sys_journal_field nor the column {column} shows notes: a note in doubt would wait forever"
            ),
            format!("{OPEN_IT}, or let it read {column}"),
        ),
        (false, _, _) => Verdict::warn(
            format!("the newest {} tickets have no notes, so nothing could be seen", tickets.ids.len()),
            "check again when a ticket has a work note, or use --write-probe",
        ),
    })
}

async fn tickets(visit: &Visit<'_>, column: &str) -> Result<Tickets, Failure> {
    let parameters = [
        ("sysparm_query", "sys_idISNOTEMPTY^ORDERBYDESCsys_updated_on".to_owned()),
        ("sysparm_fields", format!("sys_id,{column}")),
        ("sysparm_display_value", "all".to_owned()),
        ("sysparm_limit", TICKETS.to_owned()),
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let page = visit.client.get(0, &visit.path(), &parameters).await?;
    let shown = |value: Option<&Value>| match value {
        Some(Value::Object(both)) => both.get("display_value").and_then(Value::as_str).map(str::to_owned),
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let mut tickets = Tickets { ids: Vec::new(), shown: false, noted: None };
    for row in &page.rows {
        let Some(id) = shown(row.get("sys_id")) else { continue };
        if let Some(notes) = shown(row.get(column)) {
            tickets.shown = true;
            if tickets.noted.is_none() && !notes.trim().is_empty() {
                tickets.noted = Some(id.clone());
            }
        }
        tickets.ids.push(id);
    }
    Ok(tickets)
}

/// Entries of these tickets that are shown, and how many are counted.
async fn entries(visit: &Visit<'_>, column: &str, ids: &[String]) -> Result<(usize, Option<u64>), Failure> {
    let Ok(query) = Query::new().in_list("element_id", ids).eq("element", column).encoded() else {
        return Ok((0, None));
    };
    let parameters = [
        ("sysparm_query", query),
        ("sysparm_fields", "element_id,element,value".to_owned()),
        ("sysparm_limit", "5".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    match visit.client.get(0, "/api/now/table/sys_journal_field", &parameters).await {
        Ok(page) => {
            // A condition that was dropped would show others' entries.
            let ours = |row: &serde_json::Map<String, Value>| {
                ids.iter().any(|id| id == text(row, "element_id")) && row.contains_key("value")
            };
            Ok((page.rows.iter().filter(|row| ours(row)).count(), page.total))
        }
        // No right at all is as good as an empty answer.
        Err(failure) if matches!(failure.class, Class::Rejected | Class::Gone) => Ok((0, None)),
        Err(failure) => Err(failure),
    }
}
