//! Checks of a route's table: readable with the required columns, times in UTC, reliable look-ups, writable.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::run::{CheckRun, Verdict};
use crate::model::{Answer, Failure, FailureClass};
use crate::runtime::clock;
use crate::servicenow::{Client, Query, Request};

/// Number of rows that are read: enough that a single hidden row does not decide.
const SAMPLE_SIZE: &str = "10";

/// Columns that are needed to tell rows apart, and the bridge's own changes from others'.
const ESSENTIAL: [&str; 5] = ["sys_id", "sys_mod_count", "sys_updated_by", "sys_updated_on", "sys_created_on"];

/// A column that no table has.
const UNKNOWN_COLUMN: &str = "nowbridge_no_such_column";

/// The table of a route that is being checked.
pub struct RouteTable<'a> {
    /// Prefix of the ids of its checks: `sink.incidents`.
    pub name: String,
    pub table: &'a str,
    pub client: &'a Client,
}

impl RouteTable<'_> {
    pub fn id(&self, check: &str) -> String {
        format!("{}.{check}", self.name)
    }

    pub fn path(&self) -> String {
        format!("/api/now/table/{}", self.table)
    }
}

/// The sample of a table's rows.
#[derive(Debug, Clone, Default)]
pub struct TableSample {
    /// `None` where no row is readable.
    pub row: Option<SampleRow>,
}

/// A row of a sample.
#[derive(Debug, Clone)]
pub struct SampleRow {
    pub sys_id: String,
    /// Raw value of `sys_created_on`.
    pub created_on: String,
}

/// The text of a column; empty where it is absent.
pub fn text<'a>(row: &'a Map<String, Value>, column: &str) -> &'a str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

/// Reads some rows with the columns that the route needs. `additional` are those besides the essential ones. A sink
/// also needs the correlation column.
///
/// # Errors
/// The table cannot be read. The failure is recorded, and no other check of the table can run.
pub async fn read(
    run: &mut CheckRun<'_>,
    route_table: &RouteTable<'_>,
    additional: &[String],
    sink: bool,
) -> Result<TableSample, Failure> {
    let correlation = route_table.client.connection().correlation_column.clone();
    let mut columns: Vec<&str> = ESSENTIAL.to_vec();
    columns.push("number");
    columns.push(&correlation);
    columns.extend(additional.iter().map(String::as_str));
    let title = format!("table {} can be read", route_table.table);
    let parameters = [
        // Without an order, the database may return old rows.
        ("sysparm_query", "sys_idISNOTEMPTY^ORDERBYDESCsys_updated_on".to_owned()),
        ("sysparm_fields", columns.join(",")),
        ("sysparm_limit", SAMPLE_SIZE.to_owned()),
        // Counting the rows of a large table takes the instance seconds.
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_display_value", "false".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let page = route_table.client.get(0, &route_table.path(), &parameters).await;
    let page = page.inspect_err(|failure| {
        run.record(route_table.id("read"), &title, Verdict::failed(failure));
    })?;
    let Some(first) = page.rows.first() else {
        let verdict = empty(route_table).await;
        run.record(route_table.id("read"), &title, verdict);
        return Ok(TableSample::default());
    };
    let detail = format!("read {} of the newest records", page.rows.len());
    run.record(route_table.id("read"), &title, Verdict::pass(detail));
    let shown: BTreeSet<&str> = page.rows.iter().flat_map(Map::keys).map(String::as_str).collect();
    let essential = |column: &str| ESSENTIAL.contains(&column) || sink && column == correlation;
    let missing: BTreeSet<&str> = columns.iter().copied().filter(|column| !shown.contains(column)).collect();
    let verdict = columns_verdict(&missing, columns.len(), &essential);
    run.record(route_table.id("columns"), format!("columns of {} can be read", route_table.table), verdict);
    let (sys_id, created_on) = (text(first, "sys_id").to_owned(), text(first, "sys_created_on").to_owned());
    let is_complete = !sys_id.is_empty() && !created_on.is_empty();
    Ok(TableSample { row: is_complete.then_some(SampleRow { sys_id, created_on }) })
}

/// Checks why a table shows no rows: only their count tells an empty table from hidden rows.
async fn empty(route_table: &RouteTable<'_>) -> Verdict {
    let parameters = [("sysparm_fields", "sys_id".to_owned()), ("sysparm_limit", "1".to_owned())];
    match route_table.client.get(0, &route_table.path(), &parameters).await {
        Ok(page) => match page.total {
            Some(0) | None => Verdict::warn(
                "it is empty, or all its records are hidden: columns, times and look-ups can't be checked",
                "check again when the bridge's user can read a record, or use --write-probe",
            ),
            Some(hidden) => Verdict::fail(
                format!("it counts {hidden} records but shows none of the newest {SAMPLE_SIZE}"),
                "let the bridge's user read the table (role `itil` for incidents; check its ACLs and query rules)",
            ),
        },
        Err(failure) => Verdict::failed(&failure),
    }
}

fn columns_verdict(missing: &BTreeSet<&str>, requested: usize, essential: &dyn Fn(&str) -> bool) -> Verdict {
    if missing.is_empty() {
        return Verdict::pass(format!("all {requested} are readable"));
    }
    let names = missing.iter().copied().collect::<Vec<_>>().join(", ");
    let detail = format!(
        "not readable: {names}; they do not exist, or an ACL hides them (the API does not distinguish the two)"
    );
    let remedy = "let the bridge's user read them, or remove them from the configuration";
    if missing.iter().any(|column| essential(column)) {
        Verdict::fail(detail, remedy)
    } else {
        let detail = format!("{detail}; writes to them can't be verified, and user edits are not detected");
        Verdict::warn(detail, remedy)
    }
}

/// Checks that a raw time in a query finds the row that has this time.
pub async fn times(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, sample: &TableSample) {
    let title = "times in queries are read as UTC";
    let Some(SampleRow { sys_id, created_on }) = &sample.row else {
        run.record(route_table.id("times"), title, Verdict::skipped("no record is readable"));
        return;
    };
    let query = match Query::new().eq("sys_id", sys_id).eq("sys_created_on", created_on).encoded() {
        Ok(query) => query,
        Err(error) => {
            let detail = format!("the record's values can't be queried: {error}");
            run.record(route_table.id("times"), title, Verdict::skipped(detail));
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
    let verdict = match route_table.client.get(0, &route_table.path(), &parameters).await {
        Ok(page) if page.rows.iter().any(|row| text(row, "sys_id") == sys_id) => {
            Verdict::pass("a record was found by its raw time")
        }
        Ok(_) => Verdict::fail(
            format!(
                "record {sys_id} has sys_created_on {created_on}, but a query for it does not find the record: the \
                 source would miss records"
            ),
            "set the integration user's time zone to GMT and check again",
        ),
        Err(failure) => Verdict::failed(&failure),
    };
    run.record(route_table.id("times"), title, verdict);
}

/// Checks that a look-up of an unknown correlation finds nothing, and that a look-up by a column that no table has is
/// not accepted as an answer.
pub async fn correlation(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, sample: &TableSample) {
    let column = &route_table.client.connection().correlation_column;
    let title = format!("look-ups by {column} are reliable");
    let unknown = format!("nowbridge-check-{:032x}", fastrand::u128(..));
    let find = Request::Find { correlation: unknown.clone(), columns: Vec::new() };
    let verdict = match route_table.client.perform(0, find).await.answer {
        Answer::Rows { rows, .. } if !rows.is_empty() => Verdict::fail(
            "a look-up of a random correlation found a ticket",
            "report it as a bug: no instance should do this",
        ),
        Answer::Rows { .. } if sample.row.is_none() => {
            Verdict::skipped("nothing was found, but there is no record that could have been found by mistake")
        }
        Answer::Rows { .. } => match unknown_column(route_table, unknown).await {
            Ok(detail) => Verdict::pass(format!("a random correlation finds nothing; {detail}")),
            Err(verdict) => verdict,
        },
        Answer::Failed(failure) if matches!(failure.code.as_str(), "query_ignored" | "correlation_unreadable") => {
            let remedy = "let the bridge's user read and query the column, or tickets would be duplicated; the bridge \
                          creates no ticket on such a response";
            Verdict::fail(format!("{}: {}", failure.code, failure.message), remedy)
        }
        Answer::Failed(failure) => Verdict::failed(&failure),
        Answer::NotSent { reason } => Verdict::skipped(reason),
        Answer::Applied { .. } | Answer::WithoutCorrelation { .. } => {
            Verdict::fail("a look-up was answered as a write", "report it as a bug")
        }
    };
    run.record(route_table.id("correlation"), title, verdict);
}

/// Checks how the instance responds to a look-up by a column that does not exist, and that the client detects it.
async fn unknown_column(route_table: &RouteTable<'_>, correlation: String) -> Result<&'static str, Verdict> {
    let mut connection = route_table.client.connection().clone();
    connection.correlation_column = UNKNOWN_COLUMN.into();
    let client = Client::new(connection, clock::mono)
        .map_err(|error| Verdict::skipped(format!("the second look-up is not possible: {error}")))?;
    match client.perform(0, Request::Find { correlation, columns: Vec::new() }).await.answer {
        Answer::Rows { rows, .. } if rows.is_empty() => {
            Ok("the instance returns no rows for an unknown column (glide.invalid_query.returns_no_rows)")
        }
        Answer::Failed(failure) if failure.class == FailureClass::Unauthorized => Err(Verdict::failed(&failure)),
        Answer::Failed(failure) if failure.class == FailureClass::Rejected => {
            Ok("the instance rejects an unknown column")
        }
        Answer::Failed(failure) if matches!(failure.code.as_str(), "query_ignored" | "correlation_unreadable") => {
            Ok("an unknown column is ignored (the platform's default), which the bridge detects")
        }
        Answer::Failed(failure) => Err(Verdict::failed(&failure)),
        _ => Err(Verdict::fail(
            "a look-up by a column that does not exist was accepted as an answer",
            "report it as a bug: tickets of others could be updated",
        )),
    }
}

/// Checks that an update of a row that does not exist is answered with 404. That proves that the API lets this user
/// write to the table at all; only a write shows whether the table's own rules do (`--write-probe`).
pub async fn write(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>) {
    let title = format!("table {} can be written", route_table.table);
    let column = route_table.client.connection().correlation_display_column.as_str().into();
    let fields = vec![(column, "nowbridge check".to_owned())];
    let update = Request::Update { sys_id: format!("{:032x}", fastrand::u128(..)), fields, notes: Vec::new() };
    let verdict = match route_table.client.perform(0, update).await.answer {
        Answer::Failed(failure) if failure.class == FailureClass::Gone => Verdict::pass(
            "the response to an update of a record that does not exist is 404 Not Found, not 403 Forbidden; rules for \
             single records and columns show only in a real write (--write-probe)",
        ),
        Answer::Failed(failure) => Verdict::failed(&failure),
        Answer::NotSent { reason } => Verdict::skipped(reason),
        Answer::Applied { .. } | Answer::WithoutCorrelation { .. } | Answer::Rows { .. } => {
            Verdict::fail("an update of a record that can't exist was answered as applied", "report it as a bug")
        }
    };
    run.record(route_table.id("write"), title, verdict);
}

/// Checks that several requests can be sent in one, with two look-ups that find nothing.
pub async fn batch(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>) {
    let find =
        || Request::Find { correlation: format!("nowbridge-check-{:032x}", fastrand::u128(..)), columns: vec![] };
    let batch = route_table.client.perform_batch(0, &[find(), find()], |_| Ok(())).await;
    let rejected = batch.unbatch_reason.as_ref();
    let failed = batch.results.iter().find_map(|result| match &result.answer {
        Answer::Failed(failure) => Some(failure),
        _ => None,
    });
    let rows = batch.results.iter().filter(|result| matches!(result.answer, Answer::Rows { .. })).count();
    let verdict = match (rejected, failed) {
        (Some(failure), _) => Verdict::fail(
            format!("{}: {}", failure.code, failure.message),
            "let the bridge's user call the Batch API (its REST API ACL), or set `write: table`; until then the bridge \
             sends requests unbatched",
        ),
        (None, Some(failure)) => Verdict::failed(failure),
        (None, None) if rows == 2 => Verdict::pass("both look-ups of one request were answered"),
        (None, None) => Verdict::fail(
            format!("{rows} of two look-ups in one request were answered"),
            "set `write: table`: the Batch API of this instance does not behave as documented",
        ),
    };
    run.record(route_table.id("batch"), "requests can be sent in batches", verdict);
}
