//! Work notes: how they are written, and how they are found again.
//!
//! A note is found by its marker, never by its text: two alerts may say the same. Entries are looked for in
//! `sys_journal_field` first. Its ACL often hides everything and answers 200 with an empty list, so that look counts
//! only where it showed an entry of this very row and hid none. Else the row's own journal is read with display
//! values: a column the user may not read is absent there, so a present and empty one really is empty (unless
//! `sys_journal_field` counts entries that neither shows). Where neither can be trusted, the journal is `Inconclusive`.

use serde_json::Value;

use crate::model::answer::Journal;
use crate::model::{Answer, Class, Column, Failure, Row};

use super::answer::{self, Fields};
use super::classify::{self, Kind, failure};
use super::client::{Heard, RequestError};
use super::{Client, Note, Query};

/// Entries of one page.
const PAGE: usize = 200;

/// Pages that are read of one row's journal, newest first.
const PAGES: usize = 25;

/// One journal entry's text: each note and its marker on the line below, notes set apart by an empty line.
pub fn render(notes: &[Note]) -> String {
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

/// Reads a row and, where there are markers, its journal.
pub(super) async fn read(
    client: &Client,
    slot: usize,
    sys_id: &str,
    columns: &[Column],
    markers: &[String],
    may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
) -> Result<(Answer, Option<i64>), RequestError> {
    let heard = client.read(slot, Kind::Row, url(client, sys_id, columns)?, may_send).await?;
    let date = heard.head.date;
    let row = row_of(client, sys_id, columns, &heard).map_err(|failure| RequestError::Failed(failure, date))?;
    let journal = if markers.is_empty() {
        None
    } else {
        Some(look(client, slot, sys_id, markers).await.map_err(|failure| RequestError::Failed(failure, date))?)
    };
    Ok((Answer::Rows { rows: vec![row], journal }, date))
}

/// The URL of a row.
pub(super) fn url(client: &Client, sys_id: &str, columns: &[Column]) -> Result<String, Failure> {
    client.urls().row(sys_id, columns.iter().map(|c| &**c))
}

/// The row that an answer gives, if it is the one that was asked for.
pub(super) fn row_of(client: &Client, sys_id: &str, columns: &[Column], heard: &Heard) -> Result<Row, Failure> {
    let fields = classify::result::<Fields>(Kind::Row, &heard.head, &heard.body)?;
    let row = answer::row(Kind::Row, client.connection(), fields, columns)?;
    if row.sys_id == sys_id {
        return Ok(row);
    }
    let why = format!("asked for the row {sys_id}, the instance gave {}", row.sys_id);
    Err(failure(Class::Transient, "row_differs", &why))
}

/// Which of the markers stand in the row's journal.
async fn look(client: &Client, slot: usize, sys_id: &str, markers: &[String]) -> Result<Journal, Failure> {
    let entries = entries(client, slot, sys_id, markers).await?;
    if entries.trusted || entries.found.len() == markers.len() {
        return Ok(Journal::Read(entries.found));
    }
    let Some(text) = display(client, slot, sys_id).await? else { return Ok(Journal::Inconclusive) };
    let mut found = entries.found;
    for marker in markers {
        if text.contains(marker.as_str()) && !found.contains(marker) {
            found.push(marker.clone());
        }
    }
    // Something counts entries of this row, and nothing shows any.
    if found.is_empty() && text.trim().is_empty() && entries.hidden {
        return Ok(Journal::Inconclusive);
    }
    Ok(Journal::Read(found))
}

/// What `sys_journal_field` showed.
#[derive(Default)]
struct Entries {
    found: Vec<String>,
    /// It showed at least one entry of this row, and hid none.
    trusted: bool,
    /// It counted entries that it did not show.
    hidden: bool,
}

/// Looks through `sys_journal_field`, newest first. Its `name` is not asked for: a route on a base table sees rows of
/// its subclasses, and `element_id` is unique anyway. Entries that arrive between pages only shift older ones back, so
/// none is skipped.
async fn entries(client: &Client, slot: usize, sys_id: &str, markers: &[String]) -> Result<Entries, Failure> {
    let column = client.connection().journal_column.as_str();
    let query = Query::new()
        .eq("element_id", sys_id)
        .eq("element", column)
        .order_by_desc("sys_created_on")
        .order_by_desc("sys_id")
        .encoded()
        .map_err(|error| failure(Class::Rejected, "query_refused", &error.to_string()))?;
    let mut entries = Entries::default();
    let (mut ours, mut strangers, mut total) = (0_u64, false, None);
    for page in 0..PAGES {
        let parameters = [
            ("sysparm_query", query.clone()),
            ("sysparm_fields", "element_id,element,value".to_owned()),
            ("sysparm_display_value", "false".to_owned()),
            ("sysparm_exclude_reference_link", "true".to_owned()),
            ("sysparm_limit", PAGE.to_string()),
            ("sysparm_offset", (page * PAGE).to_string()),
        ];
        let url = client.urls().path("/api/now/table/sys_journal_field", &parameters);
        let answer = match client.page(slot, url).await {
            Ok(answer) => answer,
            // No right to the table, or none of that name: the row's own journal must do.
            Err(refused) if matches!(refused.class, Class::Rejected | Class::Gone) => return Ok(entries),
            Err(failed) => return Err(failed),
        };
        total = answer.total.or(total);
        let rows = answer.rows.len();
        for row in &answer.rows {
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
            if text("element_id") != sys_id || text("element") != column || !row.contains_key("value") {
                strangers = true;
                continue;
            }
            ours += 1;
            let value = text("value");
            for marker in markers {
                if value.contains(marker.as_str()) && !entries.found.contains(marker) {
                    entries.found.push(marker.clone());
                }
            }
        }
        if entries.found.len() == markers.len() {
            break;
        }
        // A page is cut before ACLs hide rows of it, so only the count tells a short page from the last.
        let seen = ((page + 1) * PAGE) as u64;
        if total.map_or(rows < PAGE, |total| seen >= total) {
            entries.trusted = ours > 0 && !strangers && total.is_none_or(|total| ours >= total);
            break;
        }
    }
    entries.hidden = strangers || total.is_some_and(|total| ours < total);
    Ok(entries)
}

/// The row's own journal as people read it; `None` where the user may not.
async fn display(client: &Client, slot: usize, sys_id: &str) -> Result<Option<String>, Failure> {
    let url = client.urls().journal(sys_id, &client.connection().journal_column)?;
    let page = match client.page(slot, url).await {
        Ok(page) => page,
        // The row was there a moment ago, so whatever refuses this says nothing about the note.
        Err(refused) if matches!(refused.class, Class::Rejected | Class::Gone) => return Ok(None),
        Err(failed) => return Err(failed),
    };
    let Some(row) = page.rows.first() else { return Ok(None) };
    if shown(row.get("sys_id")) != Some(sys_id) {
        return Ok(None);
    }
    Ok(shown(row.get(&client.connection().journal_column)).map(str::to_owned))
}

/// The display value of a column, of either form that `sysparm_display_value` gives.
fn shown(value: Option<&Value>) -> Option<&str> {
    match value? {
        Value::String(text) => Some(text),
        Value::Object(both) => both.get("display_value").and_then(Value::as_str),
        _ => None,
    }
}
