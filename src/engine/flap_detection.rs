//! Alerts that open and close again and again: how often, and how long their state is held.
//!
//! A change of an alert's state is counted when its event arrives, by the event's own time. Where there were as many as
//! the settings say within a span, the alert *flaps*: its ticket's state is then written at most once in `hold`, as it
//! is at the end of that time, and a note says so once. Held events stay unresolved, so nothing of them is lost in a
//! crash; the count itself lives in memory only: a new owner counts anew, from what was held on.

use std::collections::VecDeque;

/// When an alert flaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flapping {
    /// Changes of state that make it flap.
    pub changes: usize,
    /// Within so many milliseconds.
    pub within: u64,
    /// Then its ticket's state is written at most once in so many milliseconds.
    pub hold: u64,
}

/// What is known of the flapping of one alert.
#[derive(Debug, Clone, Default)]
pub struct Flaps {
    firing: bool,
    /// When its state changed, Unix milliseconds, oldest first; as many as make it flap, at most.
    changes: VecDeque<i64>,
    /// Since when its state is held, on the mono clock.
    held_since: Option<u64>,
    told: Telling,
}

/// Whether a ticket has been told that its alert flaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Telling {
    /// There is nothing to tell.
    #[default]
    Calm,
    Due,
    Done,
}

impl Flaps {
    /// An event says that the alert fires or not.
    pub fn hear(&mut self, firing: bool, at: i64, flapping: &Flapping) {
        if self.firing == firing && !self.changes.is_empty() {
            return;
        }
        self.firing = firing;
        self.changes.push_back(at);
        let more = self.changes.len().saturating_sub(flapping.changes);
        self.changes.drain(..more);
        if !self.flaps(at, flapping) {
            self.told = Telling::Calm;
        } else if self.told == Telling::Calm {
            self.told = Telling::Due;
        }
    }

    /// True where it flaps and its ticket has not been told.
    pub fn is_untold(&self) -> bool {
        self.told == Telling::Due
    }

    /// Its ticket is told.
    pub fn tell(&mut self) {
        self.told = Telling::Done;
    }

    /// True while it flaps.
    pub fn flaps(&self, now: i64, flapping: &Flapping) -> bool {
        let within = i64::try_from(flapping.within).unwrap_or(i64::MAX);
        let oldest = self.changes.front().filter(|_| self.changes.len() >= flapping.changes);
        oldest.is_some_and(|oldest| now.saturating_sub(*oldest) <= within)
    }

    /// Until when the state is held, on the mono clock; `None` where it may be written.
    pub fn held_until(&mut self, now: crate::model::Now, flapping: &Flapping) -> Option<u64> {
        if !self.flaps(now.unix, flapping) {
            self.held_since = None;
            self.told = Telling::Calm;
            return None;
        }
        let until = self.held_since.get_or_insert(now.mono).saturating_add(flapping.hold);
        (now.mono < until).then_some(until)
    }

    /// The state was written while it was held.
    pub fn written(&mut self, now: u64) {
        if self.held_since.is_some() {
            self.held_since = Some(now);
        }
    }

    /// True where nothing of it matters any more.
    pub fn is_over(&self, now: i64, flapping: &Flapping) -> bool {
        let within = i64::try_from(flapping.within.saturating_add(flapping.hold)).unwrap_or(i64::MAX);
        self.changes.back().is_none_or(|last| now.saturating_sub(*last) > within)
    }
}

impl Flapping {
    /// The note that tells of it.
    pub fn note(&self) -> String {
        format!(
            "Flapping: {} changes of state within {}. From now on the state of this ticket changes at most once in {}.",
            self.changes,
            span(self.within),
            span(self.hold)
        )
    }
}

fn span(ms: u64) -> String {
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

    const FLAPPING: Flapping = Flapping { changes: 4, within: 60_000, hold: 30_000 };

    fn now(ms: u64) -> Now {
        Now { mono: ms, unix: i64::try_from(ms).expect("small") }
    }

    #[test]
    fn it_flaps_after_as_many_changes_and_no_longer_once_it_is_calm() {
        let mut flaps = Flaps::default();
        for (at, firing) in [(0, true), (1_000, true), (5_000, false), (10_000, true)] {
            flaps.hear(firing, at, &FLAPPING);
            assert!(!flaps.is_untold());
            assert_eq!(flaps.held_until(now(10_000), &FLAPPING), None, "{at}");
        }
        flaps.hear(false, 15_000, &FLAPPING);
        assert!(flaps.is_untold());
        flaps.tell();
        assert_eq!(flaps.held_until(now(15_000), &FLAPPING), Some(45_000));
        flaps.hear(true, 16_000, &FLAPPING);
        assert!(!flaps.is_untold(), "it is told once");
        assert_eq!(flaps.held_until(now(45_000), &FLAPPING), None, "the state of that time is written");
        flaps.written(46_000);
        assert_eq!(flaps.held_until(now(46_000), &FLAPPING), Some(76_000), "and then held again");
        assert_eq!(flaps.held_until(now(66_000), &FLAPPING), None, "the oldest change is a minute ago");
        assert!(!flaps.is_over(66_000, &FLAPPING) && flaps.is_over(110_000, &FLAPPING));
    }

    #[test]
    fn the_note_is_in_units_for_people() {
        let text = Flapping { changes: 6, within: 600_000, hold: 90_000 }.note();
        assert!(text.starts_with("Flapping: 6 changes of state within 10 min."), "{text}");
        assert!(text.ends_with("at most once in 90 s."), "{text}");
    }
}
