//! Finding the tickets of a correlation, row by row.
//!
//! An instance drops a term of a query whose column it does not know or show, and then answers with the whole table;
//! and its database compares without regard to case and trailing blanks. So each row must show the correlation, byte
//! for byte, or it is not one of ours, and an answer that cannot prove anything is a failure, never "there is none".

use std::collections::BTreeSet;

use crate::model::{Answer, Class, Column, Failure};

use super::answer::{self, Fields};
use super::classify::{self, Kind, failure};
use super::client::{Heard, RequestError};
use super::text::bounded;
use super::{Client, Query};

/// Most rows that are looked at: the newest.
pub const LIMIT: usize = 50;

/// Finds the rows that carry `correlation`, oldest first. The newest [`LIMIT`] are asked for, so that a key with a
/// long history still shows its present ticket.
pub async fn find(
    client: &Client,
    slot: usize,
    correlation: &str,
    columns: &[Column],
    may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
) -> Result<(Answer, Option<i64>), RequestError> {
    let heard = client.read(slot, Kind::List, url(client, correlation, columns)?, may_send).await?;
    let date = heard.head.date;
    let answer = found(client, correlation, columns, &heard);
    answer.map(|answer| (answer, date)).map_err(|failure| RequestError::Failed(failure, date))
}

/// The URL of the look-up.
pub(super) fn url(client: &Client, correlation: &str, columns: &[Column]) -> Result<String, Failure> {
    let query = Query::new()
        .eq(&client.connection().correlation_column, correlation)
        .order_by_desc("sys_created_on")
        .encoded()
        .map_err(|error| failure(Class::Rejected, "query_refused", &error.to_string()))?;
    Ok(client.urls().list(columns.iter().map(|c| &**c), &query, LIMIT))
}

/// What the answer to the look-up means.
pub(super) fn found(client: &Client, correlation: &str, columns: &[Column], heard: &Heard) -> Result<Answer, Failure> {
    let connection = client.connection();
    let found = classify::result::<Vec<Fields>>(Kind::List, &heard.head, &heard.body)?;
    let found = ours(&connection.correlation_column, correlation, found)?;
    let rows = found.into_iter().map(|fields| answer::row(Kind::List, connection, fields, columns));
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    rows.sort_by(|a, b| (a.created_on, &a.sys_id).cmp(&(b.created_on, &b.sys_id)));
    Ok(Answer::Rows { rows, journal: None })
}

/// The rows that carry the correlation; a failure where the answer as a whole cannot be trusted.
pub(super) fn ours(column: &str, correlation: &str, found: Vec<Fields>) -> Result<Vec<Fields>, Failure> {
    let full = found.len() >= LIMIT;
    let mut unreadable = 0_usize;
    let mut strangers = BTreeSet::new();
    let mut rows = Vec::new();
    for fields in found {
        match fields.get(column) {
            None => unreadable += 1,
            Some(carried) if carried == correlation => rows.push(fields),
            Some(carried) => {
                strangers.insert(carried.to_owned());
            }
        }
    }
    if rows.is_empty() && unreadable > 0 {
        let why =
            format!("{unreadable} rows came without {column}: may the bridge's user read it, and is it a column?");
        return Err(failure(Class::Transient, "correlation_unreadable", &why));
    }
    if !strangers.is_empty() {
        tracing::warn!(column, strangers = strangers.len(), "a look-up gave rows of other correlations, left out");
    }
    // One stranger can be what the database takes for equal (case, accents, trailing blanks); several, or a full page
    // with any, are a query that was ignored, and our row may be one that did not fit.
    if !strangers.is_empty() && (full || (rows.is_empty() && apart(correlation, &strangers) > 1)) {
        let example = strangers.first().map(|s| bounded(s, 60)).unwrap_or_default();
        let why = format!("asked for one {column}, the instance gave {} others, such as {example:?}", strangers.len());
        return Err(failure(Class::Transient, "query_ignored", &why));
    }
    Ok(rows)
}

/// How many of the values differ by more than case and trailing blanks.
fn apart(correlation: &str, strangers: &BTreeSet<String>) -> usize {
    let plain = |text: &str| text.trim_end().to_lowercase();
    let wanted = plain(correlation);
    strangers.iter().filter(|stranger| plain(stranger) != wanted).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Option<&str>) -> Fields {
        let mut fields = vec![("sys_id".to_owned(), "x".to_owned())];
        fields.extend(value.map(|value| ("correlation_id".to_owned(), value.to_owned())));
        Fields(fields)
    }

    fn look(values: &[Option<&str>]) -> Result<usize, String> {
        ours("correlation_id", "Key", values.iter().map(|v| row(*v)).collect()).map(|r| r.len()).map_err(|f| f.code)
    }

    #[test]
    fn only_rows_that_carry_the_correlation_count() {
        assert_eq!(look(&[]), Ok(0));
        assert_eq!(look(&[Some("Key")]), Ok(1));
        assert_eq!(look(&[Some("Key"), Some("KEY"), Some("Key "), Some("Kéy")]), Ok(1));
        assert_eq!(look(&[Some("key")]), Ok(0), "equal for the database, another key for us");
    }

    #[test]
    fn a_look_that_proves_nothing_is_no_empty_answer() {
        assert_eq!(look(&[None]), Err("correlation_unreadable".into()));
        assert_eq!(look(&[None, Some("other")]), Err("correlation_unreadable".into()));
        assert_eq!(look(&[Some("a"), Some("b")]), Err("query_ignored".into()));
        let mut page = vec![Some("Key")];
        page.resize(LIMIT, Some(""));
        assert_eq!(look(&page), Err("query_ignored".into()));
    }

    #[test]
    fn a_full_page_of_our_own_is_fine() {
        assert_eq!(look(&[Some("Key"); LIMIT]), Ok(LIMIT));
    }
}
