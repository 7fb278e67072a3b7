//! Paging by key over a table that changes while it is read.
//!
//! A *sweep* reads everything from the cursor minus the overlap up to the instance's present, in the order of
//! (time column, `sys_id`), and asks for each page by the key of the last row it got: rows that move while the sweep
//! goes on move to its end, so none is jumped over, as would happen with offsets. Only when a page was hidden from us
//! as a whole (the instance cuts a page before it applies its ACLs) there is no key to go on from, and offsets carry
//! over that stretch.
//!
//! Guarantee: a row that becomes visible at most `overlap + lag` seconds after its stamp is returned by some sweep.
//! The cursor moves only at the end of a sweep, to the instance's clock *at its start* minus the lag: a row that the
//! sweep passed before it was visible has a stamp later than start - lateness, which the next sweep reads again. This
//! holds however long a sweep takes, and across restarts, since its start is stored in the checkpoint. The local clock
//! is never asked.
//!
//! Not covered: rows that surface later than that, and updates that leave the stamp alone (`autoSysFields(false)`).

use serde::{Deserialize, Serialize};

use super::timestamp;

/// How a table is read.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Seconds read again before the cursor.
    pub overlap: i64,
    /// Seconds the cursor stays behind the instance's clock.
    pub lag: i64,
    /// Rows of a page.
    pub page: u32,
    /// Nothing older than this is read, Unix seconds.
    pub floor: i64,
}

/// The place of a row in the order of reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowKey {
    /// The time column, Unix seconds.
    pub at: i64,
    /// `sys_id`.
    pub sys_id: String,
}

/// A sweep under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// The instance's clock when it began, Unix seconds.
    pub began: i64,
    /// The last row read, if any.
    pub after: Option<RowKey>,
    /// Rows to pass over after it: more than 0 only in a stretch that is hidden from us.
    #[serde(default)]
    pub offset: u64,
}

/// Progress over one table: everything before the cursor has been read, late rows of the overlap excepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Unix seconds.
    pub cursor: i64,
    /// The sweep under way; none between polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
}

/// The instance did not do what the query asked for; going on would lose rows or never end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PagingError {
    /// A row before the start of the page.
    #[error(
        "the instance returned a row that the query excludes ({column} {got} although it asked for {wanted} and \
         later): the account may not read {column}, or the filter has a column that the table does not have"
    )]
    OutOfWindow {
        /// The time column.
        column: &'static str,
        /// What came.
        got: String,
        /// What was asked for.
        wanted: String,
    },
    /// Rows not in order.
    #[error("the instance returned rows that are not in the order of {column}: paging by key is not possible")]
    Unordered {
        /// The time column.
        column: &'static str,
    },
    /// The same page again.
    #[error("the instance returned the row {sys_id} again after it was asked for later ones")]
    Standing {
        /// The row.
        sys_id: String,
    },
    /// No clock.
    #[error("the answer has no usable Date header; the cursor follows the instance's clock and no other")]
    NoDate,
}

impl Track {
    /// A track that has read everything before `cursor`.
    pub fn at(cursor: i64) -> Self {
        Self { cursor, sweep: None }
    }

    /// Where a sweep begins.
    pub fn from(&self, window: &Window) -> i64 {
        self.cursor.saturating_sub(window.overlap).max(window.floor)
    }

    /// The encoded query of the next page. `filter` must have passed [`check_filter`]; it is repeated in both groups,
    /// because `^NQ` begins a new one.
    pub fn query(&self, window: &Window, column: &str, filter: &str) -> String {
        let filter = if filter.is_empty() { String::new() } else { format!("^{filter}") };
        let condition = match self.sweep.as_ref().and_then(|s| s.after.as_ref()) {
            None => format!("{column}>={}{filter}", timestamp::raw(self.from(window))),
            Some(RowKey { at, sys_id }) => {
                let at = timestamp::raw(*at);
                format!("{column}>{at}{filter}^NQ{column}={at}^sys_id>{sys_id}{filter}")
            }
        };
        format!("{condition}^ORDERBY{column}^ORDERBYsys_id")
    }

    /// Rows to pass over.
    pub fn offset(&self) -> u64 {
        self.sweep.as_ref().map_or(0, |s| s.offset)
    }

    /// The track after a page. `keys` are those of its rows in the order they came, `total` is `X-Total-Count` of the
    /// query, `now` the instance's clock, not later than when it ran the query.
    ///
    /// # Errors
    /// Where the page contradicts the query, so that going on would lose rows.
    pub fn advance(
        &self,
        window: &Window,
        column: &'static str,
        keys: &[RowKey],
        total: Option<u64>,
        now: Option<i64>,
    ) -> Result<Track, PagingError> {
        let before = match &self.sweep {
            Some(sweep) => sweep.clone(),
            None => Sweep { began: now.ok_or(PagingError::NoDate)?, after: None, offset: 0 },
        };
        self.check(window, column, keys, before.after.as_ref())?;
        let page = u64::from(window.page);
        let came = keys.len() as u64;
        let more = came >= page || total.is_some_and(|t| t > before.offset + page);
        if !more {
            return Ok(Track { cursor: self.cursor.max(before.began.saturating_sub(window.lag)), sweep: None });
        }
        let (after, offset) = match keys.last() {
            Some(key) => (Some(key.clone()), 0),
            None => (before.after, before.offset + page),
        };
        Ok(Track { cursor: self.cursor, sweep: Some(Sweep { began: before.began, after, offset }) })
    }

    fn check(
        &self,
        window: &Window,
        column: &'static str,
        keys: &[RowKey],
        after: Option<&RowKey>,
    ) -> Result<(), PagingError> {
        let wanted = after.map_or_else(|| self.from(window), |k| k.at);
        let mut last = wanted;
        for key in keys {
            if key.at < wanted {
                let (got, wanted) = (timestamp::raw(key.at), timestamp::raw(wanted));
                return Err(PagingError::OutOfWindow { column, got, wanted });
            }
            if key.at < last {
                return Err(PagingError::Unordered { column });
            }
            // Compared for equality alone: the order of sys_ids is the database's collation, which we don't know.
            if after.is_some_and(|a| a == key) {
                return Err(PagingError::Standing { sys_id: key.sys_id.clone() });
            }
            last = key.at;
        }
        Ok(())
    }
}

/// Refuses a filter that would break out of the paging query.
///
/// # Errors
/// What is wrong with it and what to do, for people.
pub fn check_filter(filter: &str) -> Result<(), String> {
    for (bad, why) in [
        ("^NQ", "begins a new group, which the paging condition would not reach; use IN or ^OR"),
        ("ORDERBY", "the order is the source's own; leave it out"),
        ("javascript:", "would be evaluated by the instance; write the value"),
        ("\n", "an encoded query is one line"),
    ] {
        if filter.contains(bad) {
            return Err(format!("filter contains {bad:?}: {why}"));
        }
    }
    if filter.starts_with('^') || filter.ends_with('^') {
        return Err("filter begins or ends with ^: leave it out".into());
    }
    Ok(())
}

/// True for what can stand in a query as a sys_id: base-system rows have some that are not hex.
pub fn is_sys_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: Window = Window { overlap: 60, lag: 5, page: 2, floor: 0 };

    fn key(at: i64, id: &str) -> RowKey {
        RowKey { at, sys_id: id.into() }
    }

    #[test]
    fn the_next_page_is_asked_for_by_key_with_the_filter_in_both_groups() {
        let t = Track::at(1_000);
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
    fn the_cursor_follows_the_clock_of_the_sweeps_start_and_never_goes_back() {
        let t = Track::at(1_000);
        let t = t.advance(&W, "c", &[key(950, "a"), key(950, "b")], None, Some(1_100)).unwrap();
        assert_eq!(t.cursor, 1_000, "not before the sweep has ended");
        let t = t.advance(&W, "c", &[], None, Some(9_999)).unwrap();
        assert_eq!(t, Track::at(1_095), "the clock at the start, minus the lag");
        assert_eq!(t.advance(&W, "c", &[], None, Some(50)).unwrap().cursor, 1_095);
    }

    #[test]
    fn a_hidden_page_is_passed_over_by_offset_and_a_short_one_is_not_the_end() {
        let t = Track::at(1_000);
        let t = t.advance(&W, "c", &[key(950, "a")], Some(9), Some(1_100)).unwrap();
        assert_eq!((t.offset(), t.sweep.is_some()), (0, true));
        let t = t.advance(&W, "c", &[], Some(8), Some(1_100)).unwrap();
        assert_eq!(t.offset(), 2);
        let t = t.advance(&W, "c", &[key(960, "c")], Some(8), Some(1_100)).unwrap();
        assert_eq!((t.offset(), t.query(&W, "c", "").contains("sys_id>c")), (0, true));
        assert!(t.advance(&W, "c", &[], Some(0), None).unwrap().sweep.is_none());
    }

    #[test]
    fn an_instance_that_ignores_the_query_is_noticed() {
        let t = Track::at(1_000);
        assert!(matches!(t.advance(&W, "c", &[key(3, "a")], None, Some(1_100)), Err(PagingError::OutOfWindow { .. })));
        assert!(matches!(
            t.advance(&W, "c", &[key(970, "a"), key(960, "b")], None, Some(1_100)),
            Err(PagingError::Unordered { .. })
        ));
        let page = [key(950, "a"), key(950, "b")];
        let t = t.advance(&W, "c", &page, None, Some(1_100)).unwrap();
        assert!(matches!(t.advance(&W, "c", &page, None, None), Err(PagingError::Standing { .. })));
        assert_eq!(Track::at(0).advance(&W, "c", &[], None, None), Err(PagingError::NoDate));
    }

    #[test]
    fn a_filter_cannot_break_out() {
        assert!(check_filter("active=true^priority=1^ORpriority=2").is_ok());
        for bad in ["a=1^NQb=2", "a=1^ORDERBYb", "a=javascript:x()", "^a=1", "a=1\nb=2"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
        assert!(is_sys_id("0123456789abcdef0123456789abcdef") && !is_sys_id("a^b") && !is_sys_id(""));
    }
}
