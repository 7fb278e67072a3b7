//! How long an alert was open: what the hold-down is measured by.
//!
//! Like all of a fold it can be put together: that of two runs of events is that of the one run which they make.

/// How long an alert was open in a run of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Openness {
    /// Since when it is open, where the run leaves it so and opened it itself.
    pub since: Option<i64>,
    /// When it was closed first.
    closed_first: Option<i64>,
    /// The longest time that it was open from an opening to a closing event, milliseconds.
    pub longest: i64,
}

impl Openness {
    pub(super) fn open(&mut self, at: i64) {
        self.since.get_or_insert(at);
    }

    pub(super) fn close(&mut self, at: i64) {
        self.closed_first.get_or_insert(at);
        if let Some(since) = self.since.take() {
            self.longest = self.longest.max(at.saturating_sub(since));
        }
    }

    /// This run and then `later`.
    pub(super) fn then(&mut self, later: Self) {
        // What later opens is open already, if it is.
        if let Some(at) = later.closed_first {
            self.close(at);
        }
        self.longest = self.longest.max(later.longest);
        self.since = self.since.or(later.since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opened (true) or closed at a time.
    fn run(events: &[(bool, i64)]) -> Openness {
        let mut openness = Openness::default();
        for &(opens, at) in events {
            if opens { openness.open(at) } else { openness.close(at) }
        }
        openness
    }

    #[test]
    fn two_runs_are_the_one_that_they_make() {
        let events = [(true, 0), (true, 5), (false, 9), (false, 11), (true, 20), (false, 23), (true, 30), (true, 31)];
        let whole = run(&events);
        assert_eq!((whole.longest, whole.since), (9, Some(30)));
        for at in 0..=events.len() {
            let (mut first, second) = (run(&events[..at]), run(&events[at..]));
            first.then(second);
            assert_eq!(first, whole, "cut at {at}");
        }
    }
}
