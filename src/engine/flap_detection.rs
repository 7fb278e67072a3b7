//! Detection of alerts that open and close again and again.
//!
//! A state change of an alert is counted when its event arrives, by the event's own time. If the configured number of
//! changes occurs within the configured time, the alert *flaps*: the state of its ticket is then written at most once
//! per `hold`, with the value it has at the end of that time, and one note says so. Held events stay unresolved, so a
//! crash loses none of them. The count is kept in memory only: a new owner counts from the held events on.

use std::collections::VecDeque;

/// When an alert counts as flapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlapSettings {
    /// Number of state changes that make an alert flap.
    pub changes: usize,
    /// The time within which they occur, milliseconds.
    pub within: u64,
    /// The state of a flapping alert's ticket is written at most once in this time, milliseconds.
    pub hold: u64,
}

/// Flap detection for one alert.
#[derive(Debug, Clone, Default)]
pub struct FlapState {
    firing: bool,
    /// When the alert's state changed, Unix milliseconds, oldest first; at most as many as make it flap.
    changes: VecDeque<i64>,
    /// Since when the state is held, on the mono clock.
    held_since: Option<u64>,
    note_state: NoteState,
}

/// Whether the note about the flapping has been added to a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum NoteState {
    /// The alert does not flap.
    #[default]
    NotNeeded,
    Due,
    Added,
}

impl FlapState {
    /// Records an event that says whether the alert fires.
    pub fn record(&mut self, firing: bool, at: i64, flapping: &FlapSettings) {
        if self.firing == firing && !self.changes.is_empty() {
            return;
        }
        self.firing = firing;
        self.changes.push_back(at);
        let excess = self.changes.len().saturating_sub(flapping.changes);
        self.changes.drain(..excess);
        if !self.is_flapping(at, flapping) {
            self.note_state = NoteState::NotNeeded;
        } else if self.note_state == NoteState::NotNeeded {
            self.note_state = NoteState::Due;
        }
    }

    /// True if the alert flaps and the note about it is not added yet.
    pub fn is_note_due(&self) -> bool {
        self.note_state == NoteState::Due
    }

    /// Records that the note was added.
    pub fn note_added(&mut self) {
        self.note_state = NoteState::Added;
    }

    /// True while the alert flaps.
    pub fn is_flapping(&self, now: i64, flapping: &FlapSettings) -> bool {
        let within = i64::try_from(flapping.within).unwrap_or(i64::MAX);
        let oldest = self.changes.front().filter(|_| self.changes.len() >= flapping.changes);
        oldest.is_some_and(|oldest| now.saturating_sub(*oldest) <= within)
    }

    /// Until when the state is held, on the mono clock; `None` if it may be written.
    pub fn hold_until(&mut self, now: crate::model::Now, flapping: &FlapSettings) -> Option<u64> {
        if !self.is_flapping(now.unix, flapping) {
            self.held_since = None;
            self.note_state = NoteState::NotNeeded;
            return None;
        }
        let until = self.held_since.get_or_insert(now.mono).saturating_add(flapping.hold);
        (now.mono < until).then_some(until)
    }

    /// Records that the state was written while it was held.
    pub fn state_written(&mut self, now: u64) {
        if self.held_since.is_some() {
            self.held_since = Some(now);
        }
    }

    /// True if the state changes are too old to matter.
    pub fn is_obsolete(&self, now: i64, flapping: &FlapSettings) -> bool {
        let within = i64::try_from(flapping.within.saturating_add(flapping.hold)).unwrap_or(i64::MAX);
        self.changes.back().is_none_or(|last| now.saturating_sub(*last) > within)
    }
}

impl FlapSettings {
    /// The note that is added to the ticket.
    pub fn note(&self) -> String {
        format!(
            "Flapping: {} changes of state within {}. From now on the state of this ticket changes at most once in {}.",
            self.changes,
            format_duration(self.within),
            format_duration(self.hold)
        )
    }
}

fn format_duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        _ if !ms.is_multiple_of(60_000) => format!("{} s", ms / 1_000),
        _ => format!("{} min", ms / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Now;

    const FLAPPING: FlapSettings = FlapSettings { changes: 4, within: 60_000, hold: 30_000 };

    fn now(ms: u64) -> Now {
        Now { mono: ms, unix: i64::try_from(ms).expect("small") }
    }

    #[test]
    fn an_alert_flaps_after_so_many_changes_until_it_is_calm() {
        let mut flaps = FlapState::default();
        for (at, firing) in [(0, true), (1_000, true), (5_000, false), (10_000, true)] {
            flaps.record(firing, at, &FLAPPING);
            assert!(!flaps.is_note_due());
            assert_eq!(flaps.hold_until(now(10_000), &FLAPPING), None, "{at}");
        }
        flaps.record(false, 15_000, &FLAPPING);
        assert!(flaps.is_note_due());
        flaps.note_added();
        assert_eq!(flaps.hold_until(now(15_000), &FLAPPING), Some(45_000));
        flaps.record(true, 16_000, &FLAPPING);
        assert!(!flaps.is_note_due(), "the note is added once");
        assert_eq!(flaps.hold_until(now(45_000), &FLAPPING), None, "the state of that time is written");
        flaps.state_written(46_000);
        assert_eq!(flaps.hold_until(now(46_000), &FLAPPING), Some(76_000), "then it is held again");
        assert_eq!(flaps.hold_until(now(66_000), &FLAPPING), None, "the oldest change is a minute ago");
        assert!(!flaps.is_obsolete(66_000, &FLAPPING) && flaps.is_obsolete(110_000, &FLAPPING));
    }

    #[test]
    fn the_note_uses_readable_units() {
        let text = FlapSettings { changes: 6, within: 600_000, hold: 90_000 }.note();
        assert!(text.starts_with("Flapping: 6 changes of state within 10 min."), "{text}");
        assert!(text.ends_with("at most once in 90 s."), "{text}");
    }
}
