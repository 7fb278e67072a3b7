//! A staging table of import sets: has it the columns that are sent, long enough, as far as that can be seen?
//!
//! Columns are looked up in the dictionary (`sys_dictionary`), which many users may not read; the newest staged rows are
//! the second best. What the transform map does with them shows only in a write: nothing is staged without
//! `--write-probe`, because a map that is set up wrongly would make a ticket of it.

use std::collections::BTreeMap;

use super::rounds::{Rounds, Verdict};
use super::table::{Visit, text};
use crate::config::Sink;
use crate::model::Failure;
use crate::servicenow::{ImportSet, Query};

/// Lengths of what names the alert and the bridge.
const SHORT: [(&str, usize); 2] = [("correlation_id", 100), ("correlation_display", 100)];

/// Looks at the staging table.
pub async fn check(rounds: &mut Rounds<'_>, visit: &Visit<'_>, sink: &Sink, import: &ImportSet) {
    let what = format!("the staging table {} takes what is sent", import.staging);
    let needed = needed(sink, import);
    let verdict = match dictionary(visit, &import.staging).await {
        Ok(known) if !known.is_empty() => judged(&needed, &known),
        Ok(_) | Err(_) => match newest(visit, &import.staging, &needed).await {
            Ok(Some(missing)) if missing.is_empty() => Verdict::warn(
                "its columns are there; their lengths can't be seen",
                "let the bridge's user read sys_dictionary, or look for yourself: what is too long is cut",
            ),
            Ok(Some(missing)) => lacks(&missing),
            Ok(None) => Verdict::warn(
                "neither its dictionary nor a row of it can be read: its columns can't be seen",
                "let the bridge's user read sys_dictionary and the staging table (it must read what it stages, or \
                 answers are empty), or use --write-probe",
            ),
            Err(failure) => Verdict::failed(&failure),
        },
    };
    rounds.note(visit.id("staging"), what, verdict);
}

/// Staging columns and the characters that they must hold; 0: whatever they hold.
fn needed(sink: &Sink, import: &ImportSet) -> BTreeMap<String, usize> {
    let mut needed = BTreeMap::from([(import.coalesce.clone(), 32)]);
    needed.insert(import.column("work_notes"), sink.settings.note_limit);
    needed.insert(import.column(&sink.settings.states.column), 0);
    needed.extend(SHORT.map(|(column, length)| (import.column(column), length)));
    for (column, length) in sink.mapping.lengths() {
        needed.insert(import.column(column), length);
    }
    needed
}

fn lacks(missing: &[String]) -> Verdict {
    Verdict::fail(
        format!("it has no column {}: what is sent there is dropped without a word", missing.join(", ")),
        "add the columns to the staging table and map them, or take them out of `fields`",
    )
}

fn judged(needed: &BTreeMap<String, usize>, known: &BTreeMap<String, usize>) -> Verdict {
    let missing: Vec<String> = needed.keys().filter(|column| !known.contains_key(*column)).cloned().collect();
    if !missing.is_empty() {
        return lacks(&missing);
    }
    let short: Vec<String> = needed
        .iter()
        .filter_map(|(column, least)| {
            let holds = known.get(column).copied().unwrap_or(0);
            // A dictionary may leave the length out.
            (holds > 0 && holds < *least).then(|| format!("{column} ({holds}, for up to {least})"))
        })
        .collect();
    if short.is_empty() {
        return Verdict::pass(format!("all {} columns are there, and long enough", needed.len()));
    }
    Verdict::warn(
        format!("too short: {}; longer values are cut there without a word", short.join(", ")),
        "lengthen the columns, or name their lengths under `lengths` (`note_limit` for work notes)",
    )
}

/// Columns of a table by its dictionary, and their lengths.
async fn dictionary(visit: &Visit<'_>, table: &str) -> Result<BTreeMap<String, usize>, Failure> {
    let query = Query::new().eq("name", table).encoded().unwrap_or_default();
    let parameters = [
        ("sysparm_query", query),
        ("sysparm_fields", "name,element,max_length".to_owned()),
        ("sysparm_limit", "1000".to_owned()),
    ];
    let page = visit.client.get(0, "/api/now/table/sys_dictionary", &parameters).await?;
    // A term that the instance did not know would have been dropped, and other tables' columns be among them.
    let own = page.rows.iter().filter(|row| text(row, "name") == table && !text(row, "element").is_empty());
    Ok(own.map(|row| (text(row, "element").to_owned(), text(row, "max_length").parse().unwrap_or(0))).collect())
}

/// Columns that the newest rows don't show; `None` where there is no row.
async fn newest(
    visit: &Visit<'_>,
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
    let page = visit.client.get(0, &format!("/api/now/table/{table}"), &parameters).await?;
    let missing = |row: &serde_json::Map<String, serde_json::Value>| {
        columns.iter().filter(|column| !row.contains_key(**column)).map(|column| (*column).to_owned()).collect()
    };
    Ok(page.rows.first().map(missing))
}
