//! Checks of an import set's staging table: whether it has the columns that are sent, and whether they are long enough.
//!
//! The columns are read from the dictionary (`sys_dictionary`), which many users may not read, or else from the newest
//! staged row. Only a write shows what the transform map does with them. Nothing is staged without `--write-probe`,
//! because a misconfigured map would create a ticket.

use std::collections::BTreeMap;

use super::run::{CheckRun, Verdict};
use super::table::{RouteTable, text};
use crate::config::Sink;
use crate::model::Failure;
use crate::servicenow::{ImportSet, Query};

/// Lengths of the columns that identify the alert and the bridge.
const FIXED_LENGTHS: [(&str, usize); 2] = [("correlation_id", 100), ("correlation_display", 100)];

/// Checks the staging table.
pub async fn check(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, sink: &Sink, import: &ImportSet) {
    let title = format!("the staging table {} has the columns that are sent", import.staging);
    let needed = needed(sink, import);
    let verdict = match dictionary(route_table, &import.staging).await {
        Ok(known) if !known.is_empty() => columns_verdict(&needed, &known),
        Ok(_) | Err(_) => match missing_in_newest(route_table, &import.staging, &needed).await {
            Ok(Some(missing)) if missing.is_empty() => Verdict::warn(
                "all columns exist; their lengths can't be checked",
                "let the bridge's user read sys_dictionary, or check the lengths manually: longer values are truncated",
            ),
            Ok(Some(missing)) => missing_verdict(&missing),
            Ok(None) => Verdict::warn(
                "neither its dictionary nor a row of it is readable, so its columns can't be checked",
                "let the bridge's user read sys_dictionary and the staging table (without the right to read staged \
                 rows, responses are empty), or use --write-probe",
            ),
            Err(failure) => Verdict::failed(&failure),
        },
    };
    run.record(route_table.id("staging"), title, verdict);
}

/// The staging columns and their required lengths in characters; 0: any length.
fn needed(sink: &Sink, import: &ImportSet) -> BTreeMap<String, usize> {
    let mut needed = BTreeMap::from([(import.coalesce.clone(), 32)]);
    needed.insert(import.column("work_notes"), sink.settings.note_limit);
    needed.insert(import.column(&sink.settings.states.column), 0);
    needed.extend(FIXED_LENGTHS.map(|(column, length)| (import.column(column), length)));
    for (column, length) in sink.mapping.lengths() {
        needed.insert(import.column(column), length);
    }
    needed
}

fn missing_verdict(missing: &[String]) -> Verdict {
    Verdict::fail(
        format!("it has no column {}: the values sent are silently dropped", missing.join(", ")),
        "add the columns to the staging table and map them, or remove them from `fields`",
    )
}

fn columns_verdict(needed: &BTreeMap<String, usize>, known: &BTreeMap<String, usize>) -> Verdict {
    let missing: Vec<String> = needed.keys().filter(|column| !known.contains_key(*column)).cloned().collect();
    if !missing.is_empty() {
        return missing_verdict(&missing);
    }
    let short: Vec<String> = needed
        .iter()
        .filter_map(|(column, required)| {
            let length = known.get(column).copied().unwrap_or(0);
            // A dictionary may contain no length.
            (length > 0 && length < *required).then(|| format!("{column} ({length}, needs {required})"))
        })
        .collect();
    if short.is_empty() {
        return Verdict::pass(format!("all {} columns exist and are long enough", needed.len()));
    }
    Verdict::warn(
        format!("too short: {}; longer values are silently truncated", short.join(", ")),
        "lengthen the columns, or set their lengths under `lengths` (`note_limit` for work notes)",
    )
}

/// The columns of a table and their lengths, from the dictionary.
async fn dictionary(route_table: &RouteTable<'_>, table: &str) -> Result<BTreeMap<String, usize>, Failure> {
    let query = Query::new().eq("name", table).encoded().unwrap_or_default();
    let parameters = [
        ("sysparm_query", query),
        ("sysparm_fields", "name,element,max_length".to_owned()),
        ("sysparm_limit", "1000".to_owned()),
    ];
    let page = route_table.client.get(0, "/api/now/table/sys_dictionary", &parameters).await?;
    // If the instance ignored the query, the page contains columns of other tables.
    let own = page.rows.iter().filter(|row| text(row, "name") == table && !text(row, "element").is_empty());
    Ok(own.map(|row| (text(row, "element").to_owned(), text(row, "max_length").parse().unwrap_or(0))).collect())
}

/// Columns that the newest row does not show; `None` if there is no row.
async fn missing_in_newest(
    route_table: &RouteTable<'_>,
    table: &str,
    needed: &BTreeMap<String, usize>,
) -> Result<Option<Vec<String>>, Failure> {
    let columns: Vec<&str> = needed.keys().map(String::as_str).collect();
    let parameters = [
        ("sysparm_query", "ORDERBYDESCsys_created_on".to_owned()),
        ("sysparm_fields", columns.join(",")),
        ("sysparm_limit", "1".to_owned()),
        ("sysparm_no_count", "true".to_owned()),
    ];
    let page = route_table.client.get(0, &format!("/api/now/table/{table}"), &parameters).await?;
    let missing = |row: &serde_json::Map<String, serde_json::Value>| {
        columns.iter().filter(|column| !row.contains_key(**column)).map(|column| (*column).to_owned()).collect()
    };
    Ok(page.rows.first().map(missing))
}
