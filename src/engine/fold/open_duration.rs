//! How long an alert was open: compared with its hold-down.
//!
//! Like the rest of a fold it can be merged: the merged durations of two sequences of events are those of the whole
//! sequence.

/// The hold-down of an alert: it gets a ticket only if it stays open this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldDown {
    /// Milliseconds.
    pub duration: u64,
    /// When the opening event was received, on the mono clock.
    pub received_at: u64,
}

/// How long an alert was open in a sequence of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenDuration {
    /// When the alert was opened, Unix milliseconds, if the sequence opened it and leaves it open.
    pub open_since: Option<i64>,
    /// When it was first closed, Unix milliseconds.
    first_closed_at: Option<i64>,
    /// The longest time from an opening to a closing event, milliseconds.
    pub longest: i64,
}

impl OpenDuration {
    pub(super) fn open(&mut self, at: i64) {
        self.open_since.get_or_insert(at);
    }

    pub(super) fn close(&mut self, at: i64) {
        self.first_closed_at.get_or_insert(at);
        if let Some(open_since) = self.open_since.take() {
            self.longest = self.longest.max(at.saturating_sub(open_since));
        }
    }

    /// Appends a later sequence.
    pub(super) fn merge(&mut self, later: Self) {
        // If the alert is open here, it was opened here, and not by the later sequence.
        if let Some(at) = later.first_closed_at {
            self.close(at);
        }
        self.longest = self.longest.max(later.longest);
        self.open_since = self.open_since.or(later.open_since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies events that open (true) or close the alert at a time.
    fn run(events: &[(bool, i64)]) -> OpenDuration {
        let mut open_duration = OpenDuration::default();
        for &(opens, at) in events {
            if opens { open_duration.open(at) } else { open_duration.close(at) }
        }
        open_duration
    }

    #[test]
    fn two_merged_sequences_equal_the_whole_sequence() {
        let events = [(true, 0), (true, 5), (false, 9), (false, 11), (true, 20), (false, 23), (true, 30), (true, 31)];
        let whole = run(&events);
        assert_eq!((whole.longest, whole.open_since), (9, Some(30)));
        for at in 0..=events.len() {
            let (mut first, second) = (run(&events[..at]), run(&events[at..]));
            first.merge(second);
            assert_eq!(first, whole, "split at {at}");
        }
    }
}
