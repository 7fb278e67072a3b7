//! Checks whether work notes can be read back. A sink must find its own notes so as not to duplicate them; a source
//! publishes notes.
//!
//! A user without rights on `sys_journal_field` gets an empty list and no error. So the check searches the table for a
//! ticket whose own display values show notes: if the search finds nothing, the user may not read the table.

use serde_json::Value;

use super::run::{CheckRun, Verdict};
use super::table::{RouteTable, text};
use crate::model::{Failure, FailureClass};
use crate::servicenow::Query;

/// Number of tickets whose journals are read.
const SAMPLE_SIZE: &str = "20";

/// Which kind of route reads the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Can fall back on the ticket's own journal.
    Sink,
    /// Has no fallback.
    Source,
}

const GRANT_READ: &str = "let the bridge's user read sys_journal_field (add a read ACL for the table to its role)";

/// What the newest tickets show of their own journals.
struct TicketSample {
    ids: Vec<String>,
    /// The journal column is readable.
    is_shown: bool,
    /// The id of a ticket that has a note.
    with_note: Option<String>,
}

pub async fn check(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, reader: Reader) {
    let verdict = match verdict(route_table, reader).await {
        Ok(verdict) => verdict,
        Err(failure) => Verdict::failed(&failure),
    };
    run.record(route_table.id("journal"), "work notes can be read back", verdict);
}

async fn verdict(route_table: &RouteTable<'_>, reader: Reader) -> Result<Verdict, Failure> {
    let column = route_table.client.connection().journal_column.as_str();
    let tickets = tickets(route_table, column).await?;
    if tickets.ids.is_empty() {
        return Ok(Verdict::skipped("no record is readable"));
    }
    let ids: Vec<String> = tickets.with_note.clone().map_or(tickets.ids.clone(), |id| vec![id]);
    let (rows, total) = entries(route_table, column, &ids).await?;
    if rows > 0 {
        return Ok(Verdict::pass("sys_journal_field shows them"));
    }
    let hidden = tickets.with_note.is_some() || total.is_some_and(|total| total > 0);
    Ok(match (hidden, tickets.is_shown, reader) {
        (true, true, Reader::Sink) => Verdict::warn(
            "sys_journal_field shows nothing to this user; the ticket's own journal does, and is used instead",
            GRANT_READ,
        ),
        (true, _, Reader::Source) => Verdict::fail(
            "sys_journal_field shows nothing to this user: notes and comments can't be published",
            GRANT_READ,
        ),
        (_, false, Reader::Sink) => Verdict::fail(
            format!("neither sys_journal_field nor {column} shows notes: an ambiguous note could never be verified"),
            format!("{GRANT_READ}, or let it read {column}"),
        ),
        (false, _, _) => Verdict::warn(
            format!("the newest {} tickets have no notes, so reading them can't be checked", tickets.ids.len()),
            "check again when a ticket has a work note, or use --write-probe",
        ),
    })
}

async fn tickets(route_table: &RouteTable<'_>, column: &str) -> Result<TicketSample, Failure> {
    let parameters = [
        ("sysparm_query", "sys_idISNOTEMPTY^ORDERBYDESCsys_updated_on".to_owned()),
        ("sysparm_fields", format!("sys_id,{column}")),
        ("sysparm_display_value", "all".to_owned()),
        ("sysparm_limit", SAMPLE_SIZE.to_owned()),
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let page = route_table.client.get(0, &route_table.path(), &parameters).await?;
    let shown = |value: Option<&Value>| match value {
        Some(Value::Object(both)) => both.get("display_value").and_then(Value::as_str).map(str::to_owned),
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let mut tickets = TicketSample { ids: Vec::new(), is_shown: false, with_note: None };
    for row in &page.rows {
        let Some(id) = shown(row.get("sys_id")) else { continue };
        if let Some(notes) = shown(row.get(column)) {
            tickets.is_shown = true;
            if tickets.with_note.is_none() && !notes.trim().is_empty() {
                tickets.with_note = Some(id.clone());
            }
        }
        tickets.ids.push(id);
    }
    Ok(tickets)
}

/// Counts the entries of these tickets that `sys_journal_field` shows; also returns its own count.
async fn entries(route_table: &RouteTable<'_>, column: &str, ids: &[String]) -> Result<(usize, Option<u64>), Failure> {
    let Ok(query) = Query::new().in_list("element_id", ids).eq("element", column).encoded() else {
        return Ok((0, None));
    };
    let parameters = [
        ("sysparm_query", query),
        ("sysparm_fields", "element_id,element,value".to_owned()),
        ("sysparm_limit", "5".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    match route_table.client.get(0, "/api/now/table/sys_journal_field", &parameters).await {
        Ok(page) => {
            // If the instance ignored a condition, the page contains entries of other tickets.
            let is_own = |row: &serde_json::Map<String, Value>| {
                ids.iter().any(|id| id == text(row, "element_id")) && row.contains_key("value")
            };
            Ok((page.rows.iter().filter(|row| is_own(row)).count(), page.total))
        }
        // A user without any right to the table sees as little as one with an empty list.
        Err(failure) if matches!(failure.class, FailureClass::Rejected | FailureClass::Gone) => Ok((0, None)),
        Err(failure) => Err(failure),
    }
}
