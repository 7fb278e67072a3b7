//! A route's table: readable with the columns it needs, times in UTC, look-ups to be trusted, writable.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::rounds::{Rounds, Verdict};
use crate::model::{Answer, Class, Failure};
use crate::runtime::clock;
use crate::servicenow::{Client, Query, Request};

/// Rows that are looked at: enough that one hidden row does not decide.
const ROWS: &str = "10";

/// Columns without which a row can't be told from others, or a change from an echo.
const ESSENTIAL: [&str; 5] = ["sys_id", "sys_mod_count", "sys_updated_by", "sys_updated_on", "sys_created_on"];

/// No table has such a column.
const NO_COLUMN: &str = "nowbridge_no_such_column";

/// A route's table being looked at.
pub struct Visit<'a> {
    /// Begins the ids of its checks: `sink.incidents`.
    pub name: String,
    pub table: &'a str,
    pub client: &'a Client,
}

impl Visit<'_> {
    pub fn id(&self, check: &str) -> String {
        format!("{}.{check}", self.name)
    }

    pub fn path(&self) -> String {
        format!("/api/now/table/{}", self.table)
    }
}

/// What the look at the table showed.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// `sys_id` and raw `sys_created_on` of a row; `None` where the table is empty.
    pub row: Option<(String, String)>,
}

/// The text of a column.
pub fn text<'a>(row: &'a Map<String, Value>, column: &str) -> &'a str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

/// Reads some rows with the columns that the route needs. `wanted` are those beside the essential ones; of a sink the
/// correlation must be there too.
///
/// # Errors
/// The table can't be read: noted already, and nothing else can be looked at.
pub async fn read(rounds: &mut Rounds<'_>, visit: &Visit<'_>, wanted: &[String], sink: bool) -> Result<Seen, Failure> {
    let correlation = visit.client.connection().correlation_column.clone();
    let mut columns: Vec<&str> = ESSENTIAL.to_vec();
    columns.push("number");
    columns.push(&correlation);
    columns.extend(wanted.iter().map(String::as_str));
    let what = format!("table {} can be read", visit.table);
    let parameters = [
        // The newest rows, whatever their order in the database.
        ("sysparm_query", "sys_idISNOTEMPTY^ORDERBYDESCsys_updated_on".to_owned()),
        ("sysparm_fields", columns.join(",")),
        ("sysparm_limit", ROWS.to_owned()),
        // Counting a large table takes it seconds.
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_display_value", "false".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let page = visit.client.get(0, &visit.path(), &parameters).await;
    let page = page.inspect_err(|failure| {
        rounds.note(visit.id("read"), &what, Verdict::failed(failure));
    })?;
    let Some(first) = page.rows.first() else {
        let verdict = empty(visit).await;
        rounds.note(visit.id("read"), &what, verdict);
        return Ok(Seen::default());
    };
    rounds.note(visit.id("read"), &what, Verdict::pass(format!("{} of the newest rows seen", page.rows.len())));
    let shown: BTreeSet<&str> = page.rows.iter().flat_map(Map::keys).map(String::as_str).collect();
    let essential = |column: &str| ESSENTIAL.contains(&column) || sink && column == correlation;
    let missing: BTreeSet<&str> = columns.iter().copied().filter(|column| !shown.contains(column)).collect();
    let verdict = columns_verdict(&missing, columns.len(), &essential);
    rounds.note(visit.id("columns"), format!("columns of {} can be read", visit.table), verdict);
    let row = (text(first, "sys_id").to_owned(), text(first, "sys_created_on").to_owned());
    Ok(Seen { row: Some(row).filter(|(id, created)| !id.is_empty() && !created.is_empty()) })
}

/// Why a table shows no rows: only the count tells.
async fn empty(visit: &Visit<'_>) -> Verdict {
    let parameters = [("sysparm_fields", "sys_id".to_owned()), ("sysparm_limit", "1".to_owned())];
    match visit.client.get(0, &visit.path(), &parameters).await {
        Ok(page) => match page.total {
            Some(0) | None => Verdict::warn(
                "it is empty, or hides all its rows: columns, times and look-ups can't be looked at",
                "check again when there is a row that the bridge's user may read, or use --write-probe",
            ),
            Some(hidden) => Verdict::fail(
                format!("it counts {hidden} rows and shows none of the newest {ROWS}"),
                "let the bridge's user read the table (role `itil` for incidents; look at its ACLs and query rules)",
            ),
        },
        Err(failure) => Verdict::failed(&failure),
    }
}

fn columns_verdict(missing: &BTreeSet<&str>, asked: usize, essential: &dyn Fn(&str) -> bool) -> Verdict {
    if missing.is_empty() {
        return Verdict::pass(format!("all {asked} are shown"));
    }
    let names = missing.iter().copied().collect::<Vec<_>>().join(", ");
    let detail = format!("not shown: {names}. They don't exist, or an ACL hides them (both look alike)");
    let remedy = "let the bridge's user read them, or take them out of the configuration";
    if missing.iter().any(|column| essential(column)) {
        Verdict::fail(detail, remedy)
    } else {
        let detail = format!("{detail}; what is written there can't be verified, and a person's value is not noticed");
        Verdict::warn(detail, remedy)
    }
}

/// A raw time in a query must find the row that carries it.
pub async fn times(rounds: &mut Rounds<'_>, visit: &Visit<'_>, seen: &Seen) {
    let what = "times in queries are read as UTC";
    let Some((sys_id, created)) = &seen.row else {
        rounds.note(visit.id("times"), what, Verdict::skipped("there is no row to look at"));
        return;
    };
    let query = match Query::new().eq("sys_id", sys_id).eq("sys_created_on", created).encoded() {
        Ok(query) => query,
        Err(error) => {
            rounds.note(visit.id("times"), what, Verdict::skipped(format!("the row's values are odd: {error}")));
            return;
        }
    };
    let parameters = [
        ("sysparm_query", query),
        ("sysparm_fields", "sys_id,sys_created_on".to_owned()),
        ("sysparm_limit", "1".to_owned()),
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let verdict = match visit.client.get(0, &visit.path(), &parameters).await {
        Ok(page) if page.rows.iter().any(|row| text(row, "sys_id") == sys_id) => {
            Verdict::pass("a row was found again by its raw time")
        }
        Ok(_) => Verdict::fail(
            format!("row {sys_id} shows sys_created_on {created}, and is not found by it: the source would miss rows"),
            "set the integration user's time zone to GMT and check again",
        ),
        Err(failure) => Verdict::failed(&failure),
    };
    rounds.note(visit.id("times"), what, verdict);
}

/// A look-up of a correlation that no row has must find nothing; one for a column that no table has must not be taken
/// for an answer.
pub async fn correlation(rounds: &mut Rounds<'_>, visit: &Visit<'_>, seen: &Seen) {
    let column = &visit.client.connection().correlation_column;
    let what = format!("look-ups by {column} can be trusted");
    let unknown = format!("nowbridge-check-{:032x}", fastrand::u128(..));
    let find = Request::Find { correlation: unknown.clone(), columns: Vec::new() };
    let verdict = match visit.client.perform(0, find).await.answer {
        Answer::Rows { rows, .. } if !rows.is_empty() => Verdict::fail(
            "a ticket was found for a correlation that was made up a moment ago",
            "please report it: no instance should do this",
        ),
        Answer::Rows { .. } if seen.row.is_none() => {
            Verdict::skipped("nothing was found, but there is no row that could have been found wrongly")
        }
        Answer::Rows { .. } => match unknown_column(visit, unknown).await {
            Ok(how) => Verdict::pass(format!("a made-up one finds nothing; {how}")),
            Err(verdict) => verdict,
        },
        Answer::Failed(failure) if matches!(failure.code.as_str(), "query_ignored" | "correlation_unreadable") => {
            let remedy = "let the bridge's user read and query the column, or tickets would be doubled; the bridge \
                          makes no ticket on such an answer";
            Verdict::fail(format!("{}: {}", failure.code, failure.message), remedy)
        }
        Answer::Failed(failure) => Verdict::failed(&failure),
        Answer::NotSent { reason } => Verdict::skipped(reason),
        Answer::Applied { .. } => Verdict::fail("a look-up was answered as a write", "please report it"),
    };
    rounds.note(visit.id("correlation"), what, verdict);
}

/// How the instance answers a look-up by a column that does not exist, and that our client notices.
async fn unknown_column(visit: &Visit<'_>, correlation: String) -> Result<&'static str, Verdict> {
    let mut connection = visit.client.connection().clone();
    connection.correlation_column = NO_COLUMN.into();
    let client = Client::new(connection, clock::mono)
        .map_err(|error| Verdict::skipped(format!("the second look could not be made: {error}")))?;
    match client.perform(0, Request::Find { correlation, columns: Vec::new() }).await.answer {
        Answer::Rows { rows, .. } if rows.is_empty() => {
            Ok("unknown columns are answered with no rows (glide.invalid_query.returns_no_rows)")
        }
        Answer::Failed(failure) if failure.class == Class::Unauthorised => Err(Verdict::failed(&failure)),
        Answer::Failed(failure) if failure.class == Class::Rejected => Ok("unknown columns are refused"),
        Answer::Failed(failure) if matches!(failure.code.as_str(), "query_ignored" | "correlation_unreadable") => {
            Ok("unknown columns are ignored (the platform's default), which was noticed")
        }
        Answer::Failed(failure) => Err(Verdict::failed(&failure)),
        _ => Err(Verdict::fail(
            "a look-up by a column that does not exist was taken for an answer",
            "please report it: tickets of strangers could be updated",
        )),
    }
}

/// An update of a row that does not exist must be answered 404. That proves that the API lets this user write to the
/// table at all; whether the table's own rules do is only seen by writing (`--write-probe`).
pub async fn write(rounds: &mut Rounds<'_>, visit: &Visit<'_>) {
    let what = format!("table {} can be written", visit.table);
    let column = visit.client.connection().correlation_display_column.as_str().into();
    let fields = vec![(column, "nowbridge check".to_owned())];
    let update = Request::Update { sys_id: format!("{:032x}", fastrand::u128(..)), fields, notes: Vec::new() };
    let verdict = match visit.client.perform(0, update).await.answer {
        Answer::Failed(failure) if failure.class == Class::Gone => Verdict::pass(
            "an update of a row that does not exist is answered \"no such row\", not \"no right\"; rules of single \
             rows and columns show only in a real write (--write-probe)",
        ),
        Answer::Failed(failure) => Verdict::failed(&failure),
        Answer::NotSent { reason } => Verdict::skipped(reason),
        Answer::Applied { .. } | Answer::Rows { .. } => {
            Verdict::fail("an update of a row that can't exist was answered as done", "please report it")
        }
    };
    rounds.note(visit.id("write"), what, verdict);
}

/// Whether several requests may be sent in one, by two look-ups that find nothing.
pub async fn batch(rounds: &mut Rounds<'_>, visit: &Visit<'_>) {
    let find =
        || Request::Find { correlation: format!("nowbridge-check-{:032x}", fastrand::u128(..)), columns: vec![] };
    let replies = visit.client.perform_together(0, &[find(), find()], |_| Ok(())).await;
    let refused = replies.refused.as_ref();
    let failed = replies.each.iter().find_map(|reply| match &reply.answer {
        Answer::Failed(failure) => Some(failure),
        _ => None,
    });
    let rows = replies.each.iter().filter(|reply| matches!(reply.answer, Answer::Rows { .. })).count();
    let verdict = match (refused, failed) {
        (Some(failure), _) => Verdict::fail(
            format!("{}: {}", failure.code, failure.message),
            "let the bridge's user call the Batch API (its REST API ACL), or set `write: table`; until then requests \
             are sent singly",
        ),
        (None, Some(failure)) => Verdict::failed(failure),
        (None, None) if rows == 2 => Verdict::pass("two look-ups in one request were answered"),
        (None, None) => Verdict::fail(
            format!("of two look-ups in one request {rows} were answered"),
            "set `write: table`: the Batch API of this instance does not answer as documented",
        ),
    };
    rounds.note(visit.id("batch"), "requests can be sent in batches", verdict);
}
