//! Work notes: how they are written, and how they are found.
//!
//! A note is found by its marker, never by its text: two alerts may have the same text. The search starts in
//! `sys_journal_field`. Its ACL often hides everything and the response is 200 with an empty list, so that search is
//! conclusive only where it shows an entry of this very row and hides none. Otherwise the row's own journal is read
//! with display values. There a column that the user may not read is absent, so a column that is present and empty
//! really is empty (unless `sys_journal_field` counts entries that neither shows). Where neither is conclusive, the
//! journal is `Inconclusive`.

use serde_json::Value;

use crate::model::answer::Journal;
use crate::model::{Answer, Column, Failure, FailureClass, Row};

use super::classify::{self, RequestKind, failure};
use super::client::{HttpResponse, RequestError};
use super::row::{self, RawRow};
use super::{Client, Note, Query};

/// Entries per page.
const PAGE_SIZE: usize = 200;

/// Maximum number of pages of a row's journal that are read, newest first.
const MAX_PAGES: usize = 25;

/// Renders notes as the text of one journal entry: each note with its marker on the line below, separated by an empty
/// line.
pub fn render_entry(notes: &[Note]) -> String {
    let mut text = String::with_capacity(notes.iter().map(|n| n.text.len() + n.marker.len() + 3).sum());
    for note in notes {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&note.text);
        text.push('\n');
        text.push_str(&note.marker);
    }
    text
}

/// Reads a row and, if there are markers, searches them in its journal.
pub(super) async fn read(
    client: &Client,
    slot: usize,
    sys_id: &str,
    columns: &[Column],
    markers: &[String],
    may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
) -> Result<(Answer, Option<i64>), RequestError> {
    let response = client.read(slot, RequestKind::Read, url(client, sys_id, columns)?, may_send).await?;
    let date = response.head.date;
    let row = parse_row(client, sys_id, columns, &response).map_err(|failure| RequestError::Failed(failure, date))?;
    let journal = if markers.is_empty() {
        None
    } else {
        Some(find_markers(client, slot, sys_id, markers).await.map_err(|failure| RequestError::Failed(failure, date))?)
    };
    Ok((Answer::Rows { rows: vec![row], journal }, date))
}

/// The URL of a row.
pub(super) fn url(client: &Client, sys_id: &str, columns: &[Column]) -> Result<String, Failure> {
    client.urls().row_url(sys_id, columns.iter().map(|c| &**c))
}

/// Parses the row in a response, if it is the requested one.
pub(super) fn parse_row(
    client: &Client,
    sys_id: &str,
    columns: &[Column],
    response: &HttpResponse,
) -> Result<Row, Failure> {
    let fields = classify::parse_result::<RawRow>(RequestKind::Read, &response.head, &response.body)?;
    let row = row::parse(RequestKind::Read, client.connection(), fields, columns)?;
    if row.sys_id == sys_id {
        return Ok(row);
    }
    let reason = format!("requested the record {sys_id}, but the instance returned {}", row.sys_id);
    Err(failure(FailureClass::Transient, "row_differs", &reason))
}

/// Which of the markers the row's journal contains.
async fn find_markers(client: &Client, slot: usize, sys_id: &str, markers: &[String]) -> Result<Journal, Failure> {
    let scan = scan_journal_table(client, slot, sys_id, markers).await?;
    if scan.conclusive || scan.found.len() == markers.len() {
        return Ok(Journal::Read(scan.found));
    }
    let Some(text) = displayed_journal(client, slot, sys_id).await? else { return Ok(Journal::Inconclusive) };
    let mut found = scan.found;
    for marker in markers {
        if text.contains(marker.as_str()) && !found.contains(marker) {
            found.push(marker.clone());
        }
    }
    // `sys_journal_field` counts entries of this row, but nothing shows any.
    if found.is_empty() && text.trim().is_empty() && scan.hidden {
        return Ok(Journal::Inconclusive);
    }
    Ok(Journal::Read(found))
}

/// The result of the search in `sys_journal_field`.
#[derive(Default)]
struct JournalScan {
    found: Vec<String>,
    /// The table shows at least one entry of this row and hides none.
    conclusive: bool,
    /// The table counts entries that it does not show.
    hidden: bool,
}

/// Searches `sys_journal_field`, newest first. Its `name` is not part of the query: a route on a base table sees rows
/// of its subclasses, and `element_id` is unique anyway. Entries that are added between pages only shift older ones to
/// later pages, so none is skipped.
async fn scan_journal_table(
    client: &Client,
    slot: usize,
    sys_id: &str,
    markers: &[String],
) -> Result<JournalScan, Failure> {
    let column = client.connection().journal_column.as_str();
    let query = Query::new()
        .eq("element_id", sys_id)
        .eq("element", column)
        .order_by_desc("sys_created_on")
        .order_by_desc("sys_id")
        .encoded()
        .map_err(|error| failure(FailureClass::Rejected, "query_rejected", &error.to_string()))?;
    let mut scan = JournalScan::default();
    let (mut shown, mut foreign, mut total) = (0_u64, false, None);
    for page in 0..MAX_PAGES {
        let parameters = [
            ("sysparm_query", query.clone()),
            ("sysparm_fields", "element_id,element,value".to_owned()),
            ("sysparm_display_value", "false".to_owned()),
            ("sysparm_exclude_reference_link", "true".to_owned()),
            ("sysparm_limit", PAGE_SIZE.to_string()),
            ("sysparm_offset", (page * PAGE_SIZE).to_string()),
        ];
        let url = client.urls().path_url("/api/now/table/sys_journal_field", &parameters);
        let entries = match client.page(slot, url).await {
            Ok(page) => page,
            // The user may not read the table, or it does not exist: use the row's own journal.
            Err(failure) if matches!(failure.class, FailureClass::Rejected | FailureClass::Gone) => return Ok(scan),
            Err(failure) => return Err(failure),
        };
        total = entries.total.or(total);
        let rows = entries.rows.len();
        for row in &entries.rows {
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
            if text("element_id") != sys_id || text("element") != column || !row.contains_key("value") {
                foreign = true;
                continue;
            }
            shown += 1;
            let value = text("value");
            for marker in markers {
                if value.contains(marker.as_str()) && !scan.found.contains(marker) {
                    scan.found.push(marker.clone());
                }
            }
        }
        if scan.found.len() == markers.len() {
            break;
        }
        // ACLs hide rows after the instance has cut the page, so only the count tells a short page from the last one.
        let seen = ((page + 1) * PAGE_SIZE) as u64;
        if total.map_or(rows < PAGE_SIZE, |total| seen >= total) {
            scan.conclusive = shown > 0 && !foreign && total.is_none_or(|total| shown >= total);
            break;
        }
    }
    scan.hidden = foreign || total.is_some_and(|total| shown < total);
    Ok(scan)
}

/// The row's own journal as display text; `None` where the user may not read it.
async fn displayed_journal(client: &Client, slot: usize, sys_id: &str) -> Result<Option<String>, Failure> {
    let url = client.urls().journal_url(sys_id, &client.connection().journal_column)?;
    let page = match client.page(slot, url).await {
        Ok(page) => page,
        // The row was readable a moment ago, so a rejection says nothing about the note.
        Err(failure) if matches!(failure.class, FailureClass::Rejected | FailureClass::Gone) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let Some(row) = page.rows.first() else { return Ok(None) };
    if display_value(row.get("sys_id")) != Some(sys_id) {
        return Ok(None);
    }
    Ok(display_value(row.get(&client.connection().journal_column)).map(str::to_owned))
}

/// The display value of a column, in either form of `sysparm_display_value`.
fn display_value(value: Option<&Value>) -> Option<&str> {
    match value? {
        Value::String(text) => Some(text),
        Value::Object(both) => both.get("display_value").and_then(Value::as_str),
        _ => None,
    }
}
