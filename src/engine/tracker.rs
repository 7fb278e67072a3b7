//! The offsets of one partition that are received and not yet resolved, and the watermark that follows from them.
//!
//! Only received offsets count: compaction and transaction markers leave gaps, and a gap counts as resolved. An offset
//! is resolved when all its alert events are.

use std::collections::VecDeque;

/// The unresolved offsets of one partition, in ascending order.
#[derive(Debug, Default)]
pub struct Tracker {
    /// (offset, number of its unresolved events). Resolved offsets are removed from the front only.
    unresolved_offsets: VecDeque<(i64, u32)>,
    /// The offset after the last received one; it is the watermark if nothing is unresolved.
    next: i64,
    /// Number of unresolved events.
    unresolved: usize,
}

impl Tracker {
    /// A tracker that has received nothing; the first record has the offset `start` or a higher one.
    pub fn starting_at(start: i64) -> Self {
        Self { unresolved_offsets: VecDeque::new(), next: start, unresolved: 0 }
    }

    /// True if this offset was already received (it was fetched again).
    pub fn has_seen(&self, offset: i64) -> bool {
        offset < self.next
    }

    /// Records the receipt of a record with `events` alert events. Offsets must ascend.
    pub fn receive(&mut self, offset: i64, events: u32) {
        debug_assert!(offset >= self.next, "offsets of a partition ascend");
        if events > 0 {
            self.unresolved_offsets.push_back((offset, events));
            self.unresolved += events as usize;
        }
        self.next = offset + 1;
    }

    /// Marks one event of the record at `offset` as resolved.
    ///
    /// Returns false if no event of it was unresolved: it was resolved twice, which is a bug of the caller.
    pub fn resolve(&mut self, offset: i64) -> bool {
        let Ok(at) = self.unresolved_offsets.binary_search_by_key(&offset, |&(o, _)| o) else { return false };
        let Some((_, left)) = self.unresolved_offsets.get_mut(at) else { return false };
        if *left == 0 {
            return false;
        }
        *left -= 1;
        self.unresolved -= 1;
        while self.unresolved_offsets.front().is_some_and(|&(_, left)| left == 0) {
            self.unresolved_offsets.pop_front();
        }
        true
    }

    /// The highest offset that may be committed: every record below it is resolved.
    pub fn watermark(&self) -> i64 {
        self.unresolved_offsets.front().map_or(self.next, |&(o, _)| o)
    }

    /// Number of alert events received and not resolved.
    pub fn unresolved(&self) -> usize {
        self.unresolved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_counts_as_resolved() {
        let mut t = Tracker::starting_at(10);
        assert_eq!(t.watermark(), 10);
        t.receive(12, 1);
        t.receive(20, 2);
        assert_eq!(t.watermark(), 12);
        assert!(t.resolve(12));
        assert_eq!(t.watermark(), 20);
        assert!(t.resolve(20));
        assert_eq!(t.watermark(), 20, "one of two events is unresolved");
        assert!(t.resolve(20));
        assert_eq!(t.watermark(), 21);
        assert!(!t.resolve(20), "nothing is resolved twice");
    }

    proptest! {
        #[test]
        fn the_watermark_never_passes_an_unresolved_offset(order in proptest::collection::vec(any::<prop::sample::Index>(), 40)) {
            let mut t = Tracker::starting_at(0);
            let mut open: Vec<i64> = (0..40).map(|i| i * 3).collect();
            for &o in &open { t.receive(o, 1); }
            for pick in order {
                let o = open.remove(pick.index(open.len()));
                prop_assert!(t.resolve(o));
                prop_assert_eq!(t.watermark(), open.iter().min().copied().unwrap_or(118));
                prop_assert_eq!(t.unresolved(), open.len());
            }
        }
    }
}
