//! Look-ups of tickets by correlation, with a check of every row.
//!
//! An instance ignores a query term whose column does not exist or is hidden, and then returns the whole table; and its
//! database compares without regard to case and trailing spaces. So each row must contain the correlation, byte for
//! byte, or it is ignored. A response that proves nothing is a failure, never "no ticket".

use std::collections::BTreeSet;

use crate::model::{Answer, Column, Failure, FailureClass};

use super::classify::{self, RequestKind, failure};
use super::client::{HttpResponse, RequestError};
use super::row::{self, RawRow};
use super::text::bounded;
use super::{Client, Query};

/// Maximum number of rows that are read: the newest.
pub const MAX_ROWS: usize = 50;

/// Finds the rows with this correlation, oldest first. Requests the newest [`MAX_ROWS`], so that a key with a long
/// history still returns its current ticket.
pub async fn find(
    client: &Client,
    slot: usize,
    correlation: &str,
    columns: &[Column],
    may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
) -> Result<(Answer, Option<i64>), RequestError> {
    let response = client.read(slot, RequestKind::List, url(client, correlation, columns)?, may_send).await?;
    let date = response.head.date;
    let answer = parse_response(client, correlation, columns, &response);
    answer.map(|answer| (answer, date)).map_err(|failure| RequestError::Failed(failure, date))
}

/// Reads the rows with these sys_ids, in any order. Rows that do not exist or that the user may not read are missing.
pub async fn read_many(
    client: &Client,
    slot: usize,
    sys_ids: &[String],
    columns: &[Column],
    may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
) -> Result<(Answer, Option<i64>), RequestError> {
    let response = client.read(slot, RequestKind::List, many_url(client, sys_ids, columns)?, may_send).await?;
    let date = response.head.date;
    let answer = parse_many(client, sys_ids, columns, &response);
    answer.map(|answer| (answer, date)).map_err(|failure| RequestError::Failed(failure, date))
}

/// The URL of the rows with these sys_ids.
pub(super) fn many_url(client: &Client, sys_ids: &[String], columns: &[Column]) -> Result<String, Failure> {
    let query = Query::new()
        .in_list("sys_id", sys_ids)
        .encoded()
        .map_err(|error| failure(FailureClass::Rejected, "query_rejected", &error.to_string()))?;
    Ok(client.urls().list_url(columns.iter().map(|c| &**c), &query, sys_ids.len()))
}

/// Parses the rows with these sys_ids; others, which an instance that ignores the query returns, are dropped.
pub(super) fn parse_many(
    client: &Client,
    sys_ids: &[String],
    columns: &[Column],
    response: &HttpResponse,
) -> Result<Answer, Failure> {
    let found = classify::parse_result::<Vec<RawRow>>(RequestKind::List, &response.head, &response.body)?;
    let requested = |fields: &RawRow| fields.get("sys_id").is_some_and(|id| sys_ids.iter().any(|known| known == id));
    let rows = found
        .into_iter()
        .filter(requested)
        .map(|fields| row::parse(RequestKind::List, client.connection(), fields, columns))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Answer::Rows { rows, journal: None })
}

/// The URL of the look-up.
pub(super) fn url(client: &Client, correlation: &str, columns: &[Column]) -> Result<String, Failure> {
    let query = Query::new()
        .eq(&client.connection().correlation_column, correlation)
        .order_by_desc("sys_created_on")
        .encoded()
        .map_err(|error| failure(FailureClass::Rejected, "query_rejected", &error.to_string()))?;
    Ok(client.urls().list_url(columns.iter().map(|c| &**c), &query, MAX_ROWS))
}

/// Parses the response to a look-up.
pub(super) fn parse_response(
    client: &Client,
    correlation: &str,
    columns: &[Column],
    response: &HttpResponse,
) -> Result<Answer, Failure> {
    let connection = client.connection();
    let found = classify::parse_result::<Vec<RawRow>>(RequestKind::List, &response.head, &response.body)?;
    let found = matching_rows(&connection.correlation_column, correlation, found)?;
    let rows = found.into_iter().map(|fields| row::parse(RequestKind::List, connection, fields, columns));
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    rows.sort_by(|a, b| (a.created_on, &a.sys_id).cmp(&(b.created_on, &b.sys_id)));
    Ok(Answer::Rows { rows, journal: None })
}

/// The rows with this correlation.
///
/// # Errors
/// The response as a whole proves nothing: the column is unreadable, or the instance ignored the query.
pub(super) fn matching_rows(column: &str, correlation: &str, found: Vec<RawRow>) -> Result<Vec<RawRow>, Failure> {
    let full = found.len() >= MAX_ROWS;
    let mut unreadable = 0_usize;
    let mut other_values = BTreeSet::new();
    let mut rows = Vec::new();
    for fields in found {
        match fields.get(column) {
            None => unreadable += 1,
            Some(carried) if carried == correlation => rows.push(fields),
            Some(carried) => {
                other_values.insert(carried.to_owned());
            }
        }
    }
    if rows.is_empty() && unreadable > 0 {
        let reason = format!(
            "{unreadable} records were returned without {column}; check that the column exists and that the bridge's \
             user may read it"
        );
        return Err(failure(FailureClass::Transient, "correlation_unreadable", &reason));
    }
    if !other_values.is_empty() {
        let other_values = other_values.len();
        tracing::warn!(column, other_values, "look-up returned rows with another correlation, ignored");
    }
    // A single other value can be one that the database considers equal (case, accents, trailing spaces). Several, or a
    // full page with any, mean that the query was ignored, and the ticket may be missing from the page.
    if !other_values.is_empty() && (full || (rows.is_empty() && count_different(correlation, &other_values) > 1)) {
        let example = other_values.first().map(|s| bounded(s, 60)).unwrap_or_default();
        let reason = format!(
            "the instance ignored the query: it returned rows with {} other values of {column}, such as {example:?}",
            other_values.len()
        );
        return Err(failure(FailureClass::Transient, "query_ignored", &reason));
    }
    Ok(rows)
}

/// Counts the values that differ by more than case and trailing spaces.
fn count_different(correlation: &str, other_values: &BTreeSet<String>) -> usize {
    let normalize = |text: &str| text.trim_end().to_lowercase();
    let normalized = normalize(correlation);
    other_values.iter().filter(|value| normalize(value) != normalized).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Option<&str>) -> RawRow {
        let mut fields = vec![("sys_id".to_owned(), "x".to_owned())];
        fields.extend(value.map(|value| ("correlation_id".to_owned(), value.to_owned())));
        RawRow(fields)
    }

    fn matching(values: &[Option<&str>]) -> Result<usize, String> {
        let rows = values.iter().map(|value| row(*value)).collect();
        matching_rows("correlation_id", "Key", rows).map(|rows| rows.len()).map_err(|failure| failure.code)
    }

    #[test]
    fn only_rows_with_the_exact_correlation_match() {
        assert_eq!(matching(&[]), Ok(0));
        assert_eq!(matching(&[Some("Key")]), Ok(1));
        assert_eq!(matching(&[Some("Key"), Some("KEY"), Some("Key "), Some("Kéy")]), Ok(1));
        assert_eq!(matching(&[Some("key")]), Ok(0), "equal for the database, but another key");
    }

    #[test]
    fn a_response_that_proves_nothing_is_a_failure() {
        assert_eq!(matching(&[None]), Err("correlation_unreadable".into()));
        assert_eq!(matching(&[None, Some("other")]), Err("correlation_unreadable".into()));
        assert_eq!(matching(&[Some("a"), Some("b")]), Err("query_ignored".into()));
        let mut page = vec![Some("Key")];
        page.resize(MAX_ROWS, Some(""));
        assert_eq!(matching(&page), Err("query_ignored".into()));
    }

    #[test]
    fn a_full_page_of_matching_rows_is_accepted() {
        assert_eq!(matching(&[Some("Key"); MAX_ROWS]), Ok(MAX_ROWS));
    }
}
