//! Which offsets of one partition are received and not yet resolved, and the watermark that follows from it.
//!
//! Only offsets that were received count: compaction and transaction markers leave gaps, and a gap is the same as
//! done. An offset is resolved when all its alert events are.

use std::collections::VecDeque;

/// The unresolved offsets of one partition, in rising order.
#[derive(Debug, Default)]
pub struct Tracker {
    /// (offset, events of it that are unresolved). Resolved ones are dropped from the front only.
    open: VecDeque<(i64, u32)>,
    /// The offset after the last received one: the watermark when nothing is open.
    next: i64,
    /// Events unresolved.
    unresolved: usize,
}

impl Tracker {
    /// Nothing received yet; the first record comes from `start` or later.
    pub fn starting_at(start: i64) -> Self {
        Self { open: VecDeque::new(), next: start, unresolved: 0 }
    }

    /// True where this offset was received already (a refetch).
    pub fn has_seen(&self, offset: i64) -> bool {
        offset < self.next
    }

    /// A record with `events` alert events was received. Offsets must rise.
    pub fn receive(&mut self, offset: i64, events: u32) {
        debug_assert!(offset >= self.next, "offsets of a partition rise");
        if events > 0 {
            self.open.push_back((offset, events));
            self.unresolved += events as usize;
        }
        self.next = offset + 1;
    }

    /// One event of the record at `offset` is resolved.
    ///
    /// Returns false where nothing of it was open: a second resolution, which is a bug of the caller.
    pub fn resolve(&mut self, offset: i64) -> bool {
        let Ok(at) = self.open.binary_search_by_key(&offset, |&(o, _)| o) else { return false };
        let Some((_, left)) = self.open.get_mut(at) else { return false };
        if *left == 0 {
            return false;
        }
        *left -= 1;
        self.unresolved -= 1;
        while self.open.front().is_some_and(|&(_, left)| left == 0) {
            self.open.pop_front();
        }
        true
    }

    /// The lowest offset that may not be committed past: everything below it is resolved.
    pub fn watermark(&self) -> i64 {
        self.open.front().map_or(self.next, |&(o, _)| o)
    }

    /// Alert events received and not resolved.
    pub fn unresolved(&self) -> usize {
        self.unresolved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_is_done() {
        let mut t = Tracker::starting_at(10);
        assert_eq!(t.watermark(), 10);
        t.receive(12, 1);
        t.receive(20, 2);
        assert_eq!(t.watermark(), 12);
        assert!(t.resolve(12));
        assert_eq!(t.watermark(), 20);
        assert!(t.resolve(20));
        assert_eq!(t.watermark(), 20, "one event of two is still open");
        assert!(t.resolve(20));
        assert_eq!(t.watermark(), 21);
        assert!(!t.resolve(20), "nothing resolves twice");
    }

    proptest! {
        #[test]
        fn never_passes_an_open_offset(order in proptest::collection::vec(any::<prop::sample::Index>(), 40)) {
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
