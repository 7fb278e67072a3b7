//! Paging by key over a table that changes while it is read.
//!
//! A *sweep* reads everything from the cursor minus the lookback up to the instance's present, in the order of (time
//! column, `sys_id`), and requests each page by the key of the last row of the page before. Rows that change during
//! the sweep move to its end, so none is missed, as would happen with offsets. Offsets are used only if a whole page
//! is hidden from the account (the instance cuts a page before it applies its ACLs): then there is no key to continue
//! from.
//!
//! Guarantee: a row that becomes visible at most `lookback + safety_lag` seconds after its timestamp is returned by
//! some sweep. The cursor advances only at the end of a sweep, to the instance's clock *at its start* minus the
//! safety lag: a row that was not visible when the sweep passed it has a timestamp later than start - delay, which
//! the next sweep reads again. This holds however long a sweep takes, and across restarts, because its start is
//! stored in the checkpoint. The local clock is never used.
//!
//! Not covered: rows that become visible later than that, and updates that do not change the timestamp
//! (`autoSysFields(false)`).

use serde::{Deserialize, Serialize};

use super::timestamp;

/// How a table is read.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Seconds before the cursor that are read again.
    pub lookback: i64,
    /// Seconds by which the cursor lags the instance's clock.
    pub safety_lag: i64,
    /// Rows per page.
    pub page_size: u32,
    /// Nothing older than this is read, in Unix seconds.
    pub start_from: i64,
}

/// The position of a row in the order of reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowKey {
    /// The time column, in Unix seconds.
    pub at: i64,
    pub sys_id: String,
}

/// A sweep in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// The instance's clock at the start of the sweep, in Unix seconds.
    pub started_at: i64,
    /// The last row that was read; `None` before the first.
    pub last_row: Option<RowKey>,
    /// Rows to skip after `last_row`. Greater than 0 only among rows that are hidden from the account.
    #[serde(default)]
    pub offset: u64,
}

/// The progress over one table: everything before the cursor has been read, except for late rows within the lookback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableProgress {
    /// In Unix seconds.
    pub cursor: i64,
    /// The sweep in progress; `None` between polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
}

/// The instance did not do what the query requested. To continue would lose rows or never end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PagingError {
    /// A row before the start of the page.
    #[error(
        "the instance returned a row that the query excludes ({column} {found} instead of {expected} or \
         later): the bridge's user may not read {column}, or the filter has a column that the table does not have"
    )]
    OutOfWindow {
        column: &'static str,
        /// The row's time.
        found: String,
        /// The earliest time that the query allows.
        expected: String,
    },
    /// The rows are not in order.
    #[error("the instance returned rows that are not in the order of {column}: paging by key is not possible")]
    Unordered { column: &'static str },
    /// The previous page was returned again.
    #[error("the instance returned row {sys_id} again although the query requested later rows")]
    NotAdvancing { sys_id: String },
    /// The response has no clock.
    #[error("the response has no usable Date header, and the cursor follows only the instance's clock")]
    NoDate,
}

impl TableProgress {
    /// Creates the progress of a table that was read up to `cursor`.
    pub fn at(cursor: i64) -> Self {
        Self { cursor, sweep: None }
    }

    /// Where a sweep starts, in Unix seconds.
    pub fn lower_bound(&self, window: &Window) -> i64 {
        self.cursor.saturating_sub(window.lookback).max(window.start_from)
    }

    /// The encoded query of the next page. `filter` must have passed [`check_filter`]. It is repeated in both groups,
    /// because `^NQ` starts a new one.
    pub fn query(&self, window: &Window, column: &str, filter: &str) -> String {
        let filter = if filter.is_empty() { String::new() } else { format!("^{filter}") };
        let condition = match self.sweep.as_ref().and_then(|s| s.last_row.as_ref()) {
            None => format!("{column}>={}{filter}", timestamp::to_raw(self.lower_bound(window))),
            Some(RowKey { at, sys_id }) => {
                let at = timestamp::to_raw(*at);
                format!("{column}>{at}{filter}^NQ{column}={at}^sys_id>{sys_id}{filter}")
            }
        };
        format!("{condition}^ORDERBY{column}^ORDERBYsys_id")
    }

    /// Rows to skip.
    pub fn offset(&self) -> u64 {
        self.sweep.as_ref().map_or(0, |s| s.offset)
    }

    /// The progress after a page. `keys` are the keys of its rows in the order of the response, `total` is
    /// `X-Total-Count`, and `now` is the instance's clock, not later than the time of the query.
    ///
    /// # Errors
    /// If the page contradicts the query, so that to continue would lose rows.
    pub fn advance(
        &self,
        window: &Window,
        column: &'static str,
        keys: &[RowKey],
        total: Option<u64>,
        now: Option<i64>,
    ) -> Result<TableProgress, PagingError> {
        let before = match &self.sweep {
            Some(sweep) => sweep.clone(),
            None => Sweep { started_at: now.ok_or(PagingError::NoDate)?, last_row: None, offset: 0 },
        };
        self.check(window, column, keys, before.last_row.as_ref())?;
        let page_size = u64::from(window.page_size);
        let row_count = keys.len() as u64;
        let more = row_count >= page_size || total.is_some_and(|t| t > before.offset + page_size);
        if !more {
            return Ok(TableProgress {
                cursor: self.cursor.max(before.started_at.saturating_sub(window.safety_lag)),
                sweep: None,
            });
        }
        let (last_row, offset) = match keys.last() {
            Some(key) => (Some(key.clone()), 0),
            None => (before.last_row, before.offset + page_size),
        };
        Ok(TableProgress {
            cursor: self.cursor,
            sweep: Some(Sweep { started_at: before.started_at, last_row, offset }),
        })
    }

    fn check(
        &self,
        window: &Window,
        column: &'static str,
        keys: &[RowKey],
        last_row: Option<&RowKey>,
    ) -> Result<(), PagingError> {
        let expected = last_row.map_or_else(|| self.lower_bound(window), |k| k.at);
        let mut last = expected;
        for key in keys {
            if key.at < expected {
                let (found, expected) = (timestamp::to_raw(key.at), timestamp::to_raw(expected));
                return Err(PagingError::OutOfWindow { column, found, expected });
            }
            if key.at < last {
                return Err(PagingError::Unordered { column });
            }
            // Compared only for equality: the order of sys_ids is the database's collation, which is unknown.
            if last_row.is_some_and(|a| a == key) {
                return Err(PagingError::NotAdvancing { sys_id: key.sys_id.clone() });
            }
            last = key.at;
        }
        Ok(())
    }
}

/// Rejects a filter that would change the meaning of the paging query.
///
/// # Errors
/// The problem and its solution, for users.
pub fn check_filter(filter: &str) -> Result<(), String> {
    for (bad, reason) in [
        ("^NQ", "starts a new group without the paging condition; use IN or ^OR"),
        ("ORDERBY", "the source sets the order; remove it"),
        ("javascript:", "would be evaluated by the instance; use a literal value"),
        ("\n", "an encoded query must be a single line"),
    ] {
        if filter.contains(bad) {
            return Err(format!("filter contains {bad:?}: {reason}"));
        }
    }
    if filter.starts_with('^') || filter.ends_with('^') {
        return Err("filter begins or ends with ^: remove it".into());
    }
    Ok(())
}

/// True if the text can be used as a sys_id in a query. Some base-system rows have sys_ids that are not hexadecimal.
pub fn is_sys_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: Window = Window { lookback: 60, safety_lag: 5, page_size: 2, start_from: 0 };

    fn key(at: i64, id: &str) -> RowKey {
        RowKey { at, sys_id: id.into() }
    }

    #[test]
    fn the_next_page_is_requested_by_key_with_the_filter_in_both_groups() {
        let t = TableProgress::at(1_000);
        assert_eq!(
            t.query(&W, "sys_updated_on", "active=true"),
            "sys_updated_on>=1970-01-01 00:15:40^active=true^ORDERBYsys_updated_on^ORDERBYsys_id"
        );
        let t = t.advance(&W, "sys_updated_on", &[key(950, "a"), key(950, "b")], None, Some(1_100)).unwrap();
        assert_eq!(
            t.query(&W, "sys_updated_on", "active=true"),
            "sys_updated_on>1970-01-01 00:15:50^active=true^NQsys_updated_on=1970-01-01 00:15:50^sys_id>b^active=true\
             ^ORDERBYsys_updated_on^ORDERBYsys_id"
        );
    }

    #[test]
    fn the_cursor_advances_to_the_clock_at_the_sweeps_start_and_never_decreases() {
        let t = TableProgress::at(1_000);
        let t = t.advance(&W, "c", &[key(950, "a"), key(950, "b")], None, Some(1_100)).unwrap();
        assert_eq!(t.cursor, 1_000, "unchanged until the sweep has ended");
        let t = t.advance(&W, "c", &[], None, Some(9_999)).unwrap();
        assert_eq!(t, TableProgress::at(1_095), "the clock at the start, minus the safety lag");
        assert_eq!(t.advance(&W, "c", &[], None, Some(50)).unwrap().cursor, 1_095);
    }

    #[test]
    fn a_hidden_page_is_skipped_by_offset_and_a_short_page_is_not_the_end() {
        let t = TableProgress::at(1_000);
        let t = t.advance(&W, "c", &[key(950, "a")], Some(9), Some(1_100)).unwrap();
        assert_eq!((t.offset(), t.sweep.is_some()), (0, true));
        let t = t.advance(&W, "c", &[], Some(8), Some(1_100)).unwrap();
        assert_eq!(t.offset(), 2);
        let t = t.advance(&W, "c", &[key(960, "c")], Some(8), Some(1_100)).unwrap();
        assert_eq!((t.offset(), t.query(&W, "c", "").contains("sys_id>c")), (0, true));
        assert!(t.advance(&W, "c", &[], Some(0), None).unwrap().sweep.is_none());
    }

    #[test]
    fn an_instance_that_ignores_the_query_is_detected() {
        let t = TableProgress::at(1_000);
        assert!(matches!(t.advance(&W, "c", &[key(3, "a")], None, Some(1_100)), Err(PagingError::OutOfWindow { .. })));
        assert!(matches!(
            t.advance(&W, "c", &[key(970, "a"), key(960, "b")], None, Some(1_100)),
            Err(PagingError::Unordered { .. })
        ));
        let page = [key(950, "a"), key(950, "b")];
        let t = t.advance(&W, "c", &page, None, Some(1_100)).unwrap();
        assert!(matches!(t.advance(&W, "c", &page, None, None), Err(PagingError::NotAdvancing { .. })));
        assert_eq!(TableProgress::at(0).advance(&W, "c", &[], None, None), Err(PagingError::NoDate));
    }

    #[test]
    fn a_filter_cannot_change_the_paging_query() {
        assert!(check_filter("active=true^priority=1^ORpriority=2").is_ok());
        for bad in ["a=1^NQb=2", "a=1^ORDERBYb", "a=javascript:x()", "^a=1", "a=1\nb=2"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
        assert!(is_sys_id("0123456789abcdef0123456789abcdef") && !is_sys_id("a^b") && !is_sys_id(""));
    }
}
