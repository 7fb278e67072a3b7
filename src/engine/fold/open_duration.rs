//! How long an alert was open: compared with its hold-down.
//!
//! Like the rest of a fold it can be merged: the merged durations of two sequences of events are those of the whole
//! sequence.

use super::Segment;
use crate::model::{Now, Phase};

/// How often a held segment checks whether its partition is still catching up, milliseconds.
const CATCH_UP_POLL: u64 = 50;

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

impl Segment {
    /// When its newest opening event was received, else its first event; on the mono clock.
    pub fn newest_open_received_at(&self) -> u64 {
        self.hold_down.received_at.max(self.received_at)
    }

    /// True if the segment opens an alert that is over again within its hold-down.
    pub fn is_short_lived(&self) -> bool {
        let Some(from_open) = &self.from_open else { return false };
        let hold = i64::try_from(self.hold_down.duration).unwrap_or(i64::MAX);
        from_open.apply(Phase::None) == Phase::Resolved && from_open.open_duration.longest < hold
    }

    /// How long to wait until the alert has been open as long as its hold-down, milliseconds; `None` if it has, or is
    /// over. It is measured by the event's time or by its receipt, whichever is over first, because the event's time
    /// may be wrong. While the partition is `catching_up`, the alert's end may be among the records to come, no matter
    /// how long ago it began; a previous owner may have read it and skipped the alert.
    pub fn hold_down_left(&self, now: Now, catching_up: bool) -> Option<u64> {
        let HoldDown { duration, received_at } = self.hold_down;
        let open_duration = self.from_open.as_ref()?.open_duration;
        let wanted = i64::try_from(duration).unwrap_or(i64::MAX);
        if open_duration.longest >= wanted {
            return None;
        }
        let by_event = open_duration.open_since?.saturating_add(wanted).saturating_sub(now.unix);
        let by_event = u64::try_from(by_event).unwrap_or(0).max(if catching_up { CATCH_UP_POLL } else { 0 });
        let by_receipt = received_at.saturating_add(duration).saturating_sub(now.mono);
        let wait = by_event.min(by_receipt);
        (wait > 0).then_some(wait)
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
