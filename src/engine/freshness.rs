//! Rows as they were last seen, and how long a decision may rest on them (protocol rule 7).
//!
//! Users resolve, reopen, edit, close and delete tickets at any time, so what the ledger says of a row is never taken
//! for the row as it stands. A decision about a ticket needs a row that was seen at most [`RowAgeLimit`] ago. Guarantee:
//! a lane that needs a row always gets to its write in the end, however scarce permits are, because the limit grows
//! with their intervals and with each time the lane had to read again.

use std::collections::VecDeque;

use super::priority::LaneClass;
use crate::model::{FastMap, Key, Row};

/// Maximum number of rows that a partition keeps.
const MAX_ROWS: usize = 512;

/// A row may wait for this number of permits.
const PERMITS: u64 = 3;

/// Number of intervals between permits that are remembered. The shortest of them counts, so that a process that was
/// stopped for a while does not take its pause for scarcity.
const INTERVALS: usize = 4;

/// Number of times that the limit doubles.
const MAX_DOUBLINGS: u8 = 8;

/// A row and when it was seen.
#[derive(Debug, Clone)]
pub struct SeenRow {
    pub row: Row,
    /// When the request was sent, on the mono clock: the row is what it was then or later.
    pub sent_at: u64,
    /// When the answer came, on the mono clock. Its age counts from here: if it counted from the request, a slow
    /// instance would never show a row that is fresh enough.
    pub at: u64,
}

/// Which version of a row was seen, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenVersion {
    /// `sys_mod_count`.
    pub mod_count: u64,
    /// When its answer came, on the mono clock.
    pub at: u64,
    /// True if a newer version is known, so that no decision rests on this one any more.
    pub superseded: bool,
}

impl SeenRow {
    /// The version of the row.
    pub fn version(&self) -> SeenVersion {
        SeenVersion { mod_count: self.row.mod_count, at: self.at, superseded: false }
    }
}

/// The rows that were seen lately in one partition. Losing one costs a read, so the number is limited.
#[derive(Debug, Clone, Default)]
pub struct SeenRows {
    rows: FastMap<Key, SeenRow>,
    /// In the order in which they were seen; keys that were seen again or removed are in it more than once.
    order: VecDeque<(u64, Key)>,
}

impl SeenRows {
    /// Records a row.
    pub fn put(&mut self, key: Key, row: Row, sent_at: u64, now: u64) {
        self.order.push_back((now, key.clone()));
        self.rows.insert(key, SeenRow { row, sent_at, at: now });
        while self.order.len() > MAX_ROWS {
            self.drop_oldest();
        }
    }

    /// Forgets a row: it has changed, or may have.
    pub fn remove(&mut self, key: &str) {
        self.rows.remove(key);
    }

    /// Forgets the rows of which newer versions are known, and returns their keys. `newest`: versions by sys_id.
    pub fn forget_older(&mut self, newest: &FastMap<&str, u64>) -> Vec<Key> {
        let is_older = |seen: &SeenRow| newest.get(&*seen.row.sys_id).is_some_and(|newer| *newer > seen.row.mod_count);
        let older: Vec<Key> = self.rows.iter().filter(|(_, seen)| is_older(seen)).map(|(key, _)| key.clone()).collect();
        older.iter().for_each(|key| self.remove(key));
        older
    }

    /// The row of a key, if it is not older than `max_age`.
    pub fn get(&self, key: &str, now: u64, max_age: u64) -> Option<&SeenRow> {
        self.rows.get(key).filter(|seen| now.saturating_sub(seen.at) <= max_age)
    }

    /// Forgets the rows that were seen longer than `max_age` ago.
    pub fn prune(&mut self, now: u64, max_age: u64) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_sub(*at) > max_age) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((at, key)) = self.order.pop_front() else { return };
        if self.rows.get(&*key).is_some_and(|seen| seen.at == at) {
            self.rows.remove(&*key);
        }
    }
}

/// How old a row may be, from the configured age and the intervals between permits.
#[derive(Debug, Clone, Default)]
pub struct RowAgeLimit {
    critical: Intervals,
    standard: Intervals,
}

/// The last intervals between permits of a class, while lanes of it waited.
#[derive(Debug, Clone, Default)]
struct Intervals {
    last_permit: u64,
    lengths: [u64; INTERVALS],
    next: usize,
}

impl RowAgeLimit {
    /// Records that a lane which had waited since `waiting_since` got a permit.
    pub fn record_permit(&mut self, class: LaneClass, waiting_since: u64, now: u64) {
        let intervals = match class {
            LaneClass::Critical => &mut self.critical,
            LaneClass::Standard => &mut self.standard,
        };
        intervals.lengths[intervals.next] = now.saturating_sub(waiting_since.max(intervals.last_permit));
        intervals.next = (intervals.next + 1) % INTERVALS;
        intervals.last_permit = now;
    }

    /// The limit, milliseconds: the configured one, but at least the time of three permits; doubled each time that the
    /// lane had to read its row again.
    pub fn of(&self, class: LaneClass, configured: u64, rereads: u8) -> u64 {
        let intervals = match class {
            LaneClass::Critical => &self.critical,
            LaneClass::Standard => &self.standard,
        };
        let shortest = intervals.lengths.iter().min().copied().unwrap_or(0);
        configured.max(shortest.saturating_mul(PERMITS)).saturating_mul(1 << rereads.min(MAX_DOUBLINGS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_used_until_it_is_too_old() {
        let mut rows = SeenRows::default();
        rows.put("k".into(), Row::default(), 900, 1_000);
        assert!(rows.get("k", 6_000, 5_000).is_some());
        assert!(rows.get("k", 6_001, 5_000).is_none());
        rows.put("k".into(), Row { mod_count: 1, ..Row::default() }, 2_900, 3_000);
        rows.prune(7_000, 5_000);
        assert_eq!(rows.get("k", 7_000, 5_000).map(|seen| seen.row.mod_count), Some(1), "it was seen again");
        rows.prune(9_000, 5_000);
        assert_eq!((rows.rows.len(), rows.order.len()), (0, 0));
    }

    #[test]
    fn the_number_of_rows_is_limited() {
        let mut rows = SeenRows::default();
        (0..2_000).for_each(|n| rows.put(format!("k{n}").into(), Row::default(), n, n));
        assert_eq!((rows.rows.len(), rows.order.len()), (MAX_ROWS, MAX_ROWS));
        assert!(rows.get("k1999", 2_000, 5_000).is_some());
        (0..2_000).for_each(|n| rows.put("same".into(), Row::default(), n, 2_000 + n));
        assert_eq!((rows.rows.len(), rows.order.len()), (1, MAX_ROWS));
    }

    #[test]
    fn scarce_permits_and_rereads_raise_the_limit_and_a_pause_does_not() {
        let mut limit = RowAgeLimit::default();
        assert_eq!(limit.of(LaneClass::Standard, 5_000, 0), 5_000);
        for n in 1..=4 {
            limit.record_permit(LaneClass::Standard, 0, n * 3_600);
        }
        assert_eq!(limit.of(LaneClass::Standard, 5_000, 0), 10_800);
        assert_eq!(limit.of(LaneClass::Standard, 5_000, 2), 43_200);
        assert_eq!(limit.of(LaneClass::Critical, 5_000, 0), 5_000, "each class has its own permits");
        limit.record_permit(LaneClass::Standard, 0, 1_000_000);
        assert_eq!(limit.of(LaneClass::Standard, 5_000, 0), 10_800, "one long interval");
        limit.record_permit(LaneClass::Standard, 2_000_000, 2_000_001);
        assert_eq!(limit.of(LaneClass::Standard, 5_000, 0), 5_000, "nobody waited in between");
    }
}
